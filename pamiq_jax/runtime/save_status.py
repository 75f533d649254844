"""What a run says about its saves: apart from what saves, which a run without a directory does without."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pamiq_jax.checkpoint import StateInfo


class SaveStatus(NamedTuple):
    """What has become of the saves of a run.

    Attributes:
        written: how many are complete.
        failed: how many could not be written.
        skipped: how many were due while the one before was still being written.
        newest: the newest complete one.
        error: what the last failure said; "" since the last success.
        blocked_ms: how long the last save kept the training thread.
        write_seconds: how long the last save took its own thread.
    """

    written: int = 0
    failed: int = 0
    skipped: int = 0
    newest: StateInfo | None = None
    error: str = ""
    blocked_ms: float = 0.0
    write_seconds: float = 0.0
