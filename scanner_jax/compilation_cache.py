"""Compiled programs kept on disk, so that the next process reads what this one compiled.

The cache is JAX's own, which is one for a whole process: what is set here holds for all that the process compiles.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from pathlib import Path

import jax

logger = logging.getLogger(__name__)

LEAST_SECONDS = 0.1
"""Of compiling, from which on a program is kept; JAX's own default, 1, would leave out small encoders' on a CPU."""


def keep_compiled(folder: str | Path | None = None) -> Path | None:
    """Let JAX keep what it compiles in a folder.

    Where JAX has a folder already, by `JAX_COMPILATION_CACHE_DIR`, its config or an earlier call, that one stays. A
    folder that cannot be written is said, and nothing is kept. Whoever can write to it can make this process run code.

    Args:
        folder: made where there is none; None takes the user's own, `user_folder`.

    Returns:
        The folder that is used, None where there is none.
    """
    if kept := jax.config.values["jax_compilation_cache_dir"]:
        if folder is not None and Path(folder).absolute() != Path(kept).absolute():
            logger.warning("JAX keeps compiled programs in %s already, so not in %s", kept, folder)
        return Path(kept)
    chosen = user_folder() if folder is None else Path(folder).absolute()
    if chosen is None:
        return None
    try:
        chosen.mkdir(parents=True, exist_ok=True)
        writable = os.access(chosen, os.W_OK | os.X_OK)
    except OSError:
        writable = False
    if not writable:
        logger.warning("%s cannot be written, so every process compiles its programs anew", chosen)
        return None
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_SECONDS)
    return chosen


def user_folder() -> Path | None:
    """`scanner_jax/xla-<processor>` in the user's cache folder, `XDG_CACHE_HOME` or `~/.cache`; None without a home.

    One for each kind of processor, since XLA compiles for the instructions of the one it runs on, and machines that
    share a home may have others.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # A relative one is to be ignored (XDG Base Directory Specification).
        base = Path(named) if os.path.isabs(named) else Path.home() / ".cache"
    except RuntimeError:
        return None
    return base / "scanner_jax" / f"xla-{hashlib.sha256(_processor().encode()).hexdigest()[:8]}"


def _processor() -> str:
    """The processor's name and instructions, as far as they are told."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    told = {name.strip(): value for name, _, value in (line.partition(":") for line in lines)}
    return " ".join([platform.machine(), *(told.get(name, "") for name in ("model name", "flags", "Features"))])
