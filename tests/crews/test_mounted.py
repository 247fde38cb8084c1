"""A mounted file is judged and copied as it was opened, whatever happens to its name meanwhile."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from discovery_core.errors import DiscoveryError, ErrorCode
from discovery_crews import runner, settings
from discovery_crews.mounted import OutsideError, copy_at_most, open_within

SECRET = b"the pod's own token"
ROWS = b"name\nweb01\n"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with a file, beside something that is none of its business."""
    folder = tmp_path / "mount"
    folder.mkdir()
    (folder / "servers.csv").write_bytes(ROWS)
    (tmp_path / "token").write_bytes(SECRET)
    return folder


def link(volume: Path) -> None:
    """Puts a link where the file is, in one step."""
    (volume / "new").symlink_to(volume.parent / "token")
    (volume / "new").replace(volume / "servers.csv")


def unlink(volume: Path) -> None:
    """Puts the file back."""
    (volume / "servers.csv").unlink()
    (volume / "servers.csv").write_bytes(ROWS)


def content(volume: Path) -> bytes:
    with open_within(volume, volume / "servers.csv") as stream:
        return stream.read()


def test_s21_a_link_that_takes_the_files_place_after_the_look_is_not_followed(
    volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.fstat

    def looked_at(descriptor: int) -> os.stat_result:
        found = look(descriptor)
        link(volume)
        return found

    monkeypatch.setattr(os, "fstat", looked_at)
    assert content(volume) == ROWS
    assert (volume / "servers.csv").read_bytes() == SECRET


def test_s21_a_link_that_was_there_for_a_moment_only_is_refused(
    volume: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really: Callable[..., int] = os.open

    def opened(*arguments: object) -> int:
        link(volume)
        descriptor = really(*arguments)
        unlink(volume)
        return descriptor

    monkeypatch.setattr(os, "open", opened)
    with pytest.raises(OutsideError, match="leaves the volume"):
        content(volume)


def test_s21_links_inside_the_volume_are_followed(volume: Path) -> None:
    """As Kubernetes mounts a ConfigMap."""
    (volume / "..data").mkdir()
    (volume / "servers.csv").rename(volume / "..data" / "servers.csv")
    (volume / "servers.csv").symlink_to(Path("..data") / "servers.csv")
    assert content(volume) == ROWS


def test_s21_a_folder_of_the_way_that_leads_out_is_refused(volume: Path) -> None:
    (volume / "out").symlink_to(volume.parent)
    with pytest.raises(OutsideError), open_within(volume, volume / "out" / "token"):
        pass


def test_s21_a_pipe_is_refused_at_once(volume: Path) -> None:
    (volume / "servers.csv").unlink()
    os.mkfifo(volume / "servers.csv")
    with pytest.raises(OutsideError, match="pipe"):
        content(volume)


def test_s21_a_refused_file_is_closed(volume: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(OutsideError), open_within(volume, volume):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_s21_a_file_that_grows_while_it_is_copied_ends_at_the_limit(
    volume: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert copy_at_most(io.BytesIO(b"x" * 100), io.BytesIO(), 10) == 11
    monkeypatch.setattr(
        runner, "reader_limits", lambda: settings.ReaderLimits(max_file_bytes=len(ROWS) - 1)
    )
    where = settings.RunnerSettings(execution_url="https://x", source_root=volume)
    with pytest.raises(DiscoveryError, match="DISCOVERY_MAX_FILE_BYTES") as refused:
        runner._copy_mounted(where, volume / "servers.csv", tmp_path / "copy", "servers.csv")
    assert refused.value.code is ErrorCode.LIMIT_EXCEEDED
    assert not (tmp_path / "copy").exists()
