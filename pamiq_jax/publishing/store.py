"""The mutable cell between training and inference: one reference to one snapshot."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import jax

from pamiq_jax import trees
from pamiq_jax.errors import PublishMismatchError, UnknownNameError
from pamiq_jax.publishing.snapshot import PublishedParams, Snapshot
from pamiq_jax.types import Params


class SnapshotStore:
    """Holds the newest snapshot. Any thread may read it, without a lock and without waiting.

    Args:
        params: the initial parameters by model name; they become version 0.
        published_at: seconds on the system's clock.

    Example:
        >>> import jax.numpy as jnp
        >>> store = SnapshotStore({"policy": jnp.zeros(2), "value": jnp.zeros(2)})
        >>> before = store.latest
        >>> store.publish({"policy": jnp.ones(2)}, step=10).version
        1
        >>> print(before.params["policy"], store.latest.params["policy"], store.latest.params["value"])
        [0. 0.] [1. 1.] [0. 0.]
    """

    def __init__(self, params: Mapping[str, Params], *, published_at: float = 0.0) -> None:
        jax.block_until_ready(dict(params))
        self._latest = Snapshot.of(params, published_at=published_at)
        self._changed = threading.Condition()

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot of the same form, as a restored system does. Called before anybody reads.

        Raises:
            UnknownNameError, PublishMismatchError: as `publish`.
        """
        check_publishable(self._latest.params, snapshot.params)
        jax.block_until_ready(dict(snapshot.params))
        self._latest = snapshot

    @property
    def latest(self) -> Snapshot:
        """The newest snapshot. Take it once and use it for all models. Called from any thread."""
        return self._latest

    def publish(self, params: Mapping[str, Params], *, step: int, published_at: float = 0.0) -> Snapshot:
        """Wait until every leaf is computed, then swap the reference. Called from the training thread.

        Args:
            params: new parameters by model name; models that are not named stay as they are.
                Nothing is copied: the arrays must never be donated or written to.
            step: the publishing trainer's step.
            published_at: seconds on the system's clock.

        Returns:
            The snapshot that is now the newest.

        Raises:
            UnknownNameError: a model that version 0 does not have.
            PublishMismatchError: a leaf of another shape, dtype, weak type or sharding than in version 0.
        """
        params = PublishedParams(params)  # flattened once
        check_publishable(self._latest.params, params)
        jax.block_until_ready(params.leaves)
        with self._changed:  # for other publishers and waiters; readers take no lock
            self._latest = self._latest.succeeded_by(params, step=step, published_at=published_at)
            self._changed.notify_all()
            return self._latest

    def wait_for(self, version: int, timeout: float) -> Snapshot:
        """Sleep until a version, or a later one, is published. Called from any thread but training.

        Args:
            version: the least version to wait for.
            timeout: seconds.

        Returns:
            The newest snapshot.

        Raises:
            TimeoutError: naming the version that is there instead.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._latest.version >= version, timeout):
                raise TimeoutError(
                    f"version {version} was not published within {timeout} seconds; the newest is "
                    f"{self._latest.version}. See `run.status` for what training waits for"
                )
            return self._latest


def check_publishable(current: Mapping[str, Params], params: Mapping[str, Params]) -> None:
    """Raise if parameters cannot take the place of the current ones without a compile in inference.

    Raises:
        UnknownNameError: a name that the snapshot does not have.
        PublishMismatchError: naming the leaf, what was expected and what came.

    Example:
        >>> import jax.numpy as jnp
        >>> check_publishable({"policy": jnp.zeros(2)}, {"policy": jnp.zeros(3)})
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.PublishMismatchError: model 'policy', leaf the tree itself: expected float32[2], ...
    """
    current, params = PublishedParams(current), PublishedParams(params)
    for name in params:
        if name not in current:
            raise UnknownNameError("published model", name, current, "publish")
        if _is_of_one_program(current.flat(name), params.flat(name)):
            continue
        problem = trees.difference(current[name], params[name]) or _placement_difference(current[name], params[name])
        if problem is not None:
            raise PublishMismatchError(
                f"model {name!r}, {problem}; publish the form that version 0 has, so that inference need not compile"
            )


def _is_of_one_program(current: tuple[list[Any], Any], new: tuple[list[Any], Any]) -> bool:
    """Return whether the leaves of flattened trees are alike at a glance, as results of the same program are."""
    if current[1] != new[1]:
        return False
    for old, leaf in zip(current[0], new[0], strict=True):
        if type(old) is not type(leaf) or not hasattr(leaf, "aval"):
            return False
        if old.aval is not leaf.aval or old.sharding is not leaf.sharding:
            return False
    return True


def _placement_difference(current: Params, new: Params) -> str | None:
    pairs = zip(jax.tree.leaves(current), jax.tree.leaves(new), strict=True)
    for number, (old_leaf, new_leaf) in enumerate(pairs):
        if old_leaf is new_leaf or not isinstance(old_leaf, jax.Array):
            continue
        if (problem := _leaf_placement_difference(old_leaf, new_leaf)) is not None:
            return f"leaf {trees.leaf_names(current)[number]}: {problem}"
    return None


def _leaf_placement_difference(old_leaf: jax.Array, new_leaf: Any) -> str | None:
    if not isinstance(new_leaf, jax.Array):
        return f"expected a jax.Array, got {type(new_leaf).__name__}"
    weak, became_weak = (getattr(leaf, "weak_type", False) for leaf in (old_leaf, new_leaf))  # keys have none
    if weak != became_weak:
        return f"weak type {weak} became {became_weak}"
    if old_leaf.sharding != new_leaf.sharding:
        return f"expected on {old_leaf.sharding}, got {new_leaf.sharding}"
    return None
