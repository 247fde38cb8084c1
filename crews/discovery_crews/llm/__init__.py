"""Who judges: the built-in planner, or a language model. Importing this does not import crewai."""

from .errors import classify_exception

__all__ = ["classify_exception"]
