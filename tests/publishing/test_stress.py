"""Readers on four threads against a publisher that trains with donation at every step."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pamiq_jax.publishing import Snapshot, SnapshotStore
from pamiq_jax.trainer import TrainerState, compile_trainer, custom_trainer, gradient_trainer
from pamiq_jax.trainer.compile import own

PUBLICATIONS = 300
READERS = 4
DEADLINE_SECONDS = 120
SIZE = 2_000


class Seen(NamedTuple):
    versions: list[int]
    torn: list[int]
    kept: list[Snapshot]
    errors: list[BaseException]


def stamping_trainer() -> Any:
    """Return a trainer whose two models hold the number of the step, so that a torn read shows."""

    def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
        return jnp.mean((params["policy"] - jnp.mean(batch)) ** 2) + jnp.mean(params["value"] ** 2), {}

    inner = gradient_trainer(loss_fn, optax.adam(1e-3))

    def step(state: TrainerState[Any], batch: jax.Array) -> Any:
        after, metrics = inner.step(state, batch)
        stamp = jnp.full((SIZE,), 1.0, jnp.float32) * after.step.astype(jnp.float32)
        return after.replace(params={"policy": stamp, "value": stamp * 2}), metrics

    return custom_trainer(inner.init, step, publishes=("policy", "value"))


def read(store: SnapshotStore, done: threading.Event, start: threading.Barrier, seen: Seen) -> None:
    infer = jax.jit(lambda policy, value: (policy, value / 2))
    try:
        start.wait(DEADLINE_SECONDS)
        is_last = False
        while not is_last:
            is_last = done.is_set()  # asked before reading, so that the last version is read too
            snapshot = store.latest
            policy, value = (np.asarray(x) for x in infer(snapshot.params["policy"], snapshot.params["value"]))
            seen.versions.append(snapshot.version)
            if not (np.all(policy == snapshot.version) and np.all(value == snapshot.version)):
                seen.torn.append(snapshot.version)
            if not seen.kept or seen.kept[-1].version + 50 <= snapshot.version:
                seen.kept.append(snapshot)
    except BaseException as error:  # the main thread asserts that there is none
        seen.errors.append(error)


def train_and_publish(store: SnapshotStore, programs: Any, state: Any, batch: jax.Array) -> None:
    for position in range(PUBLICATIONS):
        donated = programs.plan.donated_part(state)
        state, _ = programs.chunk(state, batch, position, jax.random.key(0))
        assert all(leaf.is_deleted() for leaf in donated.values())
        store.publish(programs.publish(state), step=position + 1)


def test_no_read_is_torn_or_deleted_and_versions_only_grow() -> None:
    trainer, batch = stamping_trainer(), jnp.ones(4)
    state = own(trainer.init(jax.random.key(0), {"policy": jnp.zeros(SIZE), "value": jnp.zeros(SIZE)}))
    programs = compile_trainer(trainer, lambda data, position, rng_key: data, state, batch, steps=1)
    store = SnapshotStore(programs.publish(state))
    done, start = threading.Event(), threading.Barrier(READERS + 1)
    seen = [Seen([], [], [], []) for _ in range(READERS)]
    readers = [threading.Thread(target=read, args=(store, done, start, one)) for one in seen]
    for reader in readers:
        reader.start()
    try:
        start.wait(DEADLINE_SECONDS)
        train_and_publish(store, programs, state, batch)
    finally:
        done.set()
        for reader in readers:
            reader.join(DEADLINE_SECONDS)
    assert not any(reader.is_alive() for reader in readers)
    for one in seen:
        assert one.errors == []
        assert one.torn == []
        assert one.versions == sorted(one.versions)
        assert one.versions[-1] == PUBLICATIONS
        for snapshot in one.kept:
            assert np.all(np.asarray(snapshot.params["policy"]) == snapshot.version)
            assert np.all(np.asarray(snapshot.params["value"]) == 2 * snapshot.version)
