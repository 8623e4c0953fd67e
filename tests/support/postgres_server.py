"""A real PostgreSQL server on loopback for one test session, from the machine's own programs."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "s3kret/p@ss word"  # what a URL must escape
ESCAPED = "s3kret%2Fp%40ss%20word"
HOWTO = "PostgreSQL's initdb and pg_ctl are not on this machine: apt-get install postgresql"


def programs() -> Path | None:
    """The folder of PostgreSQL's server programs, the newest first."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").exists() and (folder / "initdb").exists()), None)


@contextlib.contextmanager
def running() -> Iterator[str]:
    """A server with the user `books`; gives its URL, password and all. It refuses to run as root, so does ours."""
    folder = programs()
    assert folder is not None
    user = "postgres" if os.getuid() == 0 else None
    root = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        (root / "password").write_text(PASSWORD)
        if user:
            owner = pwd.getpwnam(user)
            for path in (root, root / "password"):
                os.chown(path, owner.pw_uid, owner.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]

        def run(*words: str) -> None:
            subprocess.run(
                words,
                check=True,
                capture_output=True,
                user=user,
                group=user,
                extra_groups=[] if user else None,
                cwd=root,
                timeout=50,
            )

        data = str(root / "data")
        asked = ("-A", "scram-sha-256", "-U", "books", "--pwfile", str(root / "password"))
        run(str(folder / "initdb"), "-D", data, "-N", "-E", "UTF8", "--locale=C", *asked)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        run(str(folder / "pg_ctl"), "-D", data, "-o", options, "-l", str(root / "log"), "-w", "start")
        try:
            yield f"postgresql://books:{ESCAPED}@127.0.0.1:{port}/postgres"
        finally:
            run(str(folder / "pg_ctl"), "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(root, ignore_errors=True)
