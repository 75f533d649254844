"""Publishing: one immutable snapshot, one reference swap."""

from pamiq_jax.publishing.finite import all_finite, check_finite
from pamiq_jax.publishing.snapshot import Snapshot
from pamiq_jax.publishing.store import SnapshotStore, check_publishable

__all__ = ["Snapshot", "SnapshotStore", "all_finite", "check_finite", "check_publishable"]
