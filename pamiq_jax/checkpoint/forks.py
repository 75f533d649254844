"""What a forked child must not keep open: it would hold a pipe, or a lock, for as long as it lives."""

from __future__ import annotations

import os

_held: set[int] = set()
_is_registered = False


def leave_to_parent(*descriptors: int) -> None:
    """Have children that are forked from here on lose these descriptors, until `forget`. Called from any thread.

    A child's copy would keep a reader from its end of file, and a lock from being free, after the parent is gone.

    Args:
        descriptors: of files that are open.

    Example:
        >>> read_end, write_end = os.pipe()
        >>> leave_to_parent(write_end)
        >>> forget(write_end)
        >>> os.close(read_end), os.close(write_end)
        (None, None)
    """
    global _is_registered
    if not _is_registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_let_go)
    _is_registered = True
    _held.update(descriptors)


def forget(*descriptors: int) -> None:
    """Leave descriptors as they are: they are about to be closed, and the numbers will be others'."""
    _held.difference_update(descriptors)


def _let_go() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in _held:
        os.dup2(nothing, descriptor, inheritable=False)  # closed, the number would be another file's
    _held.clear()
    os.close(nothing)
