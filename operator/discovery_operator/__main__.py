"""`python -m discovery_operator` runs the operator; its settings come from the environment."""

from __future__ import annotations

from .main import main

if __name__ == "__main__":
    main()
