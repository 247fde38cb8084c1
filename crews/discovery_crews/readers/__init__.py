"""Reading what people export: any supported file becomes one Parquet table of texts.

`read_source` is the only door, and `read_apart` the same in a process of its own. It looks at the
bytes, not at the name, because exports are often named for another format than the one they are in.
"""

from __future__ import annotations

from .apart import read_apart
from .model import ReadRequest, ReadTable
from .read import read_source

__all__ = ["ReadRequest", "ReadTable", "read_apart", "read_source"]
