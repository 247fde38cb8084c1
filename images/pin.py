"""Names a release's images by digest in the values of its chart, and nothing else there.

    python -m images.pin charts/discoveryflow/values.yaml image=REPOSITORY@sha256:… crews.image=…

A chart from a checkout names no repository and refuses to render without one; a packaged chart
says which bytes run, whatever becomes of a tag.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import yaml

REFERENCE = re.compile(r"([a-z0-9][a-z0-9._:/-]*)@(sha256:[0-9a-f]{64})")


def pinned(values: str, images: dict[str, str]) -> str:
    """The text `values` with `images`, references by digest by path, such as `crews.image`.

    Comments and everything else stay. Raises ValueError for a reference without a digest and for a
    path that has no repository and digest.
    """
    expected = yaml.safe_load(values)
    for path, reference in images.items():
        found = REFERENCE.fullmatch(reference)
        if found is None:
            raise ValueError(f"{path}={reference}: write REPOSITORY@sha256:… with 64 hex digits")
        settings = {"repository": found[1], "digest": found[2], "tag": ""}
        _node(expected, path).update(settings)
        for name, value in settings.items():
            values = _replaced(values, [*path.split("."), name], value)
    if yaml.safe_load(values) != expected:
        raise ValueError("the values could not be pinned; write their images one setting a line")
    return values


def _node(tree: dict[str, Any], path: str) -> dict[str, Any]:
    for part in path.split("."):
        tree = tree.get(part, {})
    if not {"repository", "digest", "tag"} <= tree.keys():
        raise ValueError(f"there is no image at {path}; images are at image and crews.image")
    return tree


def _replaced(text: str, path: list[str], value: str) -> str:
    lines, open_keys = text.splitlines(keepends=True), list[tuple[int, str]]()
    for number, line in enumerate(lines):
        key = re.match(r"( *)([A-Za-z]+):", line)
        if key is None:
            continue
        open_keys = [(i, name) for i, name in open_keys if i < len(key[1])]
        open_keys.append((len(key[1]), key[2]))
        if [name for _, name in open_keys] == path:
            lines[number] = f'{key[1]}{key[2]}: "{value}"\n'
    return "".join(lines)


def main() -> None:
    """Rewrites one file."""
    parser = argparse.ArgumentParser(prog="python -m images.pin", description=main.__doc__)
    parser.add_argument("values", type=Path)
    parser.add_argument("images", nargs="+", metavar="PATH=REFERENCE")
    given = parser.parse_args()
    images = dict(image.split("=", 1) for image in given.images)
    text = given.values.read_text(encoding="utf-8")
    given.values.write_text(pinned(text, images), encoding="utf-8")


if __name__ == "__main__":
    main()
