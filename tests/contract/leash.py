"""Runs a command for as long as its own standard input is open: `python leash.py <command> ...`.

Invariant: whoever holds the other end of the pipe and dies, be it by SIGKILL, takes the command with it. `servers.py`
starts every server through this.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading

GRACE = 2  # seconds between asking and killing


def main() -> int:
    """Start the command in a process group of its own, and end that group with the pipe or on a signal."""
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=lambda: _end_with_input(command), daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: _end(command))
    return command.wait()


def _end_with_input(command: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1024):
        pass
    _end(command)


def _end(command: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, and kill what is left of it."""
    _signal(command.pid, signal.SIGTERM)
    killer = threading.Timer(GRACE, _signal, (command.pid, signal.SIGKILL))
    killer.daemon = True
    killer.start()


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main())
