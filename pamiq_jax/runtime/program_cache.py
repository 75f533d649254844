"""JAX's cache of compiled programs, on by default: the second start of a system finds what the first has compiled."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import threading
from collections.abc import Generator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

MOST_BYTES = 2**30
"""How much the cache may take; beyond it the programs that were used longest ago go."""

_DIRECTORY, _LEAST_SECONDS = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
_LOGGER = logging.getLogger("pamiq_jax")


def default_directory() -> Path:
    """Return where programs are kept if JAX's settings name no place: one directory for each kind of processor.

    Example:
        >>> default_directory().parent.name
        'pamiq_jax'
    """
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "pamiq_jax" / f"programs-{_processor()}"


def _processor() -> str:
    """Return a name for what programs are compiled for: a home directory may be shared by different machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = platform.processor()
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:12]


class _Users:
    """How many systems compile just now, and what to put back after the last of them."""

    lock = threading.Lock()
    count = 0
    least_seconds = 0.0


@contextlib.contextmanager
def kept_programs() -> Generator[Path | None]:
    """Have programs that are compiled within the block kept for later starts. JAX's settings are put back after it.

    Nothing happens if `jax_compilation_cache_dir` is set, then JAX keeps them there, or if
    `jax_enable_compilation_cache` is false, or if there is no place to write to. Systems can overlap.

    Yields:
        Where programs are kept; None if that is up to JAX's settings.

    Example:
        >>> with kept_programs() as directory:
        ...     two = jax.jit(lambda x: x + 1)(1)
    """
    directory = _begin()
    try:
        yield directory
    finally:
        if directory is not None:
            _end()


def _begin() -> Path | None:
    settings = jax.config
    with _Users.lock:
        is_first = _Users.count == 0
        if not settings.jax_enable_compilation_cache or (is_first and settings.jax_compilation_cache_dir is not None):
            return None
        directory = default_directory()
        if is_first:
            try:
                directory.mkdir(parents=True, exist_ok=True)
                forget_oldest(directory, MOST_BYTES)
            except OSError as error:
                _LOGGER.info("compiled programs are not kept: %s", error)
                return None
            _Users.least_seconds = settings.jax_persistent_cache_min_compile_time_secs
            jax.config.update(_DIRECTORY, str(directory))
            jax.config.update(_LEAST_SECONDS, 0.0)  # a small system's programs take less than JAX's second
        _Users.count += 1
    return directory


def _end() -> None:
    with _Users.lock:
        _Users.count -= 1
        if _Users.count == 0:
            jax.config.update(_DIRECTORY, None)
            jax.config.update(_LEAST_SECONDS, _Users.least_seconds)
            compilation_cache.reset_cache()


def forget_oldest(directory: Path, most_bytes: int) -> None:
    """Remove the programs that were used longest ago, if all take too much, until they take half of it.

    Args:
        directory: with a file for each program.
        most_bytes: what they may take.

    Raises:
        OSError: the directory cannot be read.

    Example:
        >>> import tempfile
        >>> directory = Path(tempfile.mkdtemp())
        >>> for name in "ab":
        ...     written = (directory / name).write_bytes(bytes(100))
        >>> forget_oldest(directory, 199)
        >>> len(list(directory.iterdir()))
        0
    """
    found: list[tuple[float, int, Path]] = []
    for path in directory.iterdir():
        with contextlib.suppress(OSError):  # another process may just be removing it
            status = path.stat()
            found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in found)
    if total <= most_bytes:
        return
    for _, size, path in sorted(found):
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
        if total <= most_bytes // 2:
            return
