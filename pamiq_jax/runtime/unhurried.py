"""File operations that leave the interpreter to who acts."""

from __future__ import annotations

import threading

from pamiq_jax.checkpoint.files import Files, before_each_file

REST_SECONDS = 0.005
GIVE_WAY_SECONDS = 0.0005
"""Long enough for a tick; so long is rested after each array."""


def unhurried(files: Files, is_hurried: threading.Event) -> Files:
    """Return file operations that rest before each file that is made or removed.

    Each operation takes the interpreter, and a core, from a thread that acts. So a save takes 5 ms longer for each
    block of 1 MiB, and the ticks that it delays are few.

    Args:
        files: the operations.
        is_hurried: no rest is taken once this is set.
    """
    return before_each_file(files, lambda: is_hurried.wait(REST_SECONDS))
