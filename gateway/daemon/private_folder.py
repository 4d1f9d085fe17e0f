"""The folder of a gateway's own sockets, which only its user may enter."""

from __future__ import annotations

import os
import stat
import zlib
from contextlib import suppress
from pathlib import Path

from gateway.daemon.process import StartError

MAX_NAME_BYTES = 24  # of a socket in it
MAX_SOCKET_PATH = 100  # bytes; the kernel takes 107


def private_folder(config: Path, make: bool = True) -> str:
    """
    The folder for the gateway of the file *config*.

    Args:
        make: make it where it is not there.

    Raises:
        StartError: there is none that only this user may enter.
    """
    # Not by hashlib, which costs the parent 4 MB: this is a name, and no secret.
    whose = f"{config.absolute()}\0{os.geteuid()}".encode()
    name = f"gateway-{zlib.crc32(whose):08x}{zlib.adler32(whose):08x}"
    given = [
        *os.environ.get("RUNTIME_DIRECTORY", "").split(":")[:1],
        os.environ.get("XDG_RUNTIME_DIR", ""),
        os.environ.get("TMPDIR", ""),
        "/tmp",
    ]
    reason = "every path is too long"
    for base in filter(None, given):
        folder = os.path.join(base, name)
        if len(os.fsencode(folder)) + 1 + MAX_NAME_BYTES > MAX_SOCKET_PATH:
            continue
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(folder, 0o700)
            found = os.lstat(folder)
        except OSError as error:
            reason = f"{folder}: {error.strerror}"
            continue
        mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
        if mine and not found.st_mode & 0o077:
            return folder
        reason = f"{folder}: others may enter it"
    raise StartError(f"no folder for the gateway's own sockets: {reason}")
