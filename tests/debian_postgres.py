"""PostgreSQL of the versions that Debian has, beside the embedded one, where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.engine import URL, make_url

PLACES = Path("/usr/lib/postgresql")
USER = "postgres"


def installed(version: int) -> bool:
    """Whether that major version's server can be started here."""
    return (PLACES / str(version) / "bin" / "initdb").exists()


@contextmanager
def debian_server(version: int) -> Iterator[URL]:
    """Superuser's address of a running server, until the block ends. It refuses to run as root."""
    binaries = PLACES / str(version) / "bin"
    root = os.geteuid() == 0
    user = USER if root else None

    def run(tool: str, *arguments: str) -> None:
        subprocess.run(
            [binaries / tool, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            user=user,
            group=user,
            extra_groups=[] if root else None,
        )

    with tempfile.TemporaryDirectory(prefix="discovery-debian-pg-") as folder:
        if root:
            shutil.chown(folder, USER, USER)
        data = f"{folder}/data"
        run("initdb", "-D", data, "-U", USER, "-A", "trust", "--no-sync")
        options = f"-k {folder} -h '' -c fsync=off -c full_page_writes=off"
        run("pg_ctl", "-D", data, "-w", "-l", f"{folder}/log", "-o", options, "start")
        try:
            yield make_url(f"postgresql+psycopg://{USER}@/postgres?host={folder}")
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
