"""Files of a mounted volume, read so that nobody can exchange them meanwhile.

Whoever else writes to the volume may put a link where a file was between a look and the copy, and
the pod's own token would be read in its place. So the file is opened once, and the open file is
what is judged and copied. Links are followed, because Kubernetes itself mounts ConfigMaps as such.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_PIECE = 1 << 20


class OutsideError(Exception):
    """What was opened is no file of the volume; the text says what and what to do."""


@contextmanager
def open_within(root: Path, path: Path) -> Iterator[BinaryIO]:
    """The file at `path`, which after all links lies below `root`.

    Raises OutsideError, and OSError where it cannot be opened.
    """
    # without waiting: the other end of a pipe may never be opened
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check(root, path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    with os.fdopen(descriptor, "rb") as stream:
        yield stream


def _check(root: Path, path: Path, descriptor: int) -> None:
    if not where(descriptor).is_relative_to(root.resolve()):
        raise OutsideError(f"{path} is a link that leaves the volume. Store the file itself.")
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISDIR(kind):
        raise OutsideError(f"{path} is a folder. Name a file in spec.source.")
    if not stat.S_ISREG(kind):
        raise OutsideError(f"{path} is a pipe or a device. Name a file in spec.source.")


def where(descriptor: int) -> Path:
    """Where an open file lies, as the kernel knows it."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def copy_at_most(source: BinaryIO, target: BinaryIO, limit: int) -> int:
    """Copy up to one byte more than `limit`; how many bytes those were."""
    copied = 0
    while piece := source.read(min(_PIECE, limit + 1 - copied)):
        target.write(piece)
        copied += len(piece)
    return copied
