"""Publishing: one immutable snapshot, one reference swap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamiq_jax.lazy import lazy_names

if TYPE_CHECKING:
    from pamiq_jax.publishing.finite import check_finite
    from pamiq_jax.publishing.snapshot import Snapshot
    from pamiq_jax.publishing.store import SnapshotStore
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "finite": "check_finite",
            "snapshot": "Snapshot",
            "store": "SnapshotStore",
        },
    )

__all__ = ["Snapshot", "SnapshotStore", "check_finite"]
