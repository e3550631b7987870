"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from scanner_jax.files import naming

logger = logging.getLogger(__name__)

LOCK = "lock"
"""The file in the folder that is locked; it stays there, and means nothing by itself."""

_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class InUseError(ValueError):
    """Another process has the folder, and this one was not to wait."""


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Have a folder, made if missing, for this process alone; wait while another one has it, and log who.

    The kernel frees the lock when its holder dies, however it dies, so that a lock file left behind blocks nobody.
    On NFS (Linux 2.6.12 or later) and on Lustre mounted with `flock`, it holds between hosts too; a mount with
    `local_lock` or `localflock` keeps it within each host, so let only one host work on such a folder. On a file
    system without locks there is a warning and no protection.

    Raises:
        InUseError: another process has it, with `wait` off; says who.
    """
    with contextlib.closing(_acquire(folder, wait)) as file:
        with naming(folder / LOCK):
            file.truncate(0)
            holder = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            file.write(json.dumps(holder))
            file.flush()
        yield


def _acquire(folder: Path, wait: bool) -> IO[str]:
    """Open and lock the lock file; closing it frees the lock."""
    path = folder / LOCK
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
        try:
            _lock(file, folder, wait)
            # The folder may have been deleted while this waited: then the locked file is no longer the one there.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[str], folder: Path, wait: bool) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if not wait:
            raise InUseError(f"{folder} is in use by {_holder(file)}") from None
        logger.warning("%s is in use by %s; waiting until it is free", folder, _holder(file))
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        logger.warning("%s lies on a file system without locks: start no other run on it", folder)


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.load(file)
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # it is just writing
        return "another process"
