"""Finds the target field of each column, by rules: header words, synonyms, values and units."""

from .engine import propose

__all__ = ["propose"]
