"""Recordings: what the threads of a live run decided and learned from, as a log that only grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.recording.reader import Recording, TickEntry
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "reader": "Recording TickEntry",
        },
    )

__all__ = ["Recording", "TickEntry"]
