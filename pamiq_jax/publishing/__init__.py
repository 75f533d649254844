"""Publishing: one immutable snapshot, one reference swap."""

from pamiq_jax.publishing.finite import check_finite
from pamiq_jax.publishing.snapshot import Snapshot
from pamiq_jax.publishing.store import SnapshotStore

__all__ = ["Snapshot", "SnapshotStore", "check_finite"]
