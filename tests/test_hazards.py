"""What is known to break where JAX meets two threads, shown to break, and what keeps it from us.

The numbers are those of the list of hazards that the design started from.
"""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pamiq_jax.data import Collector, ring_buffer
from pamiq_jax.errors import PublishMismatchError
from pamiq_jax.publishing import SnapshotStore
from pamiq_jax.testing import check_trainer
from pamiq_jax.trainer import Trainer, TrainerPrograms, buffer_pointers, compile_trainer, gradient_trainer
from pamiq_jax.trainer.compile import own

BATCH = jnp.arange(4.0)
KEY = jax.random.key(0)


def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
    return jnp.mean((params["policy"] - jnp.mean(batch)) ** 2), {}


TRAINER: Trainer[Any, Any] = gradient_trainer(loss_fn, optax.adam(0.1))


def take_all(data: jax.Array, position: Any, rng_key: jax.Array) -> jax.Array:
    return data


def first_state() -> Any:
    return own(TRAINER.init(KEY, {"policy": jnp.zeros(3)}))


def programs() -> TrainerPrograms[Any]:
    return compile_trainer(TRAINER, take_all, first_state(), BATCH, steps=1)


def test_1_a_donated_array_that_was_published_is_dead() -> None:
    naive, state = jax.jit(TRAINER.step, donate_argnums=0), first_state()
    store = SnapshotStore(TRAINER.publish(state))
    naive(state, BATCH)
    with pytest.raises(RuntimeError, match="Array has been deleted"):
        np.asarray(store.latest.params["policy"])


def test_1_split_donation_leaves_what_was_published_alive() -> None:
    ours, state = programs(), first_state()
    store = SnapshotStore(ours.publish(state))
    after, _ = ours.chunk(state, BATCH, 0, KEY)
    assert buffer_pointers(store.latest.params["policy"]) == buffer_pointers(state.params)  # by reference
    assert store.latest.params["policy"].tolist() == [0, 0, 0]
    assert after.params["policy"].tolist() != [0, 0, 0]


def test_2_device_put_shares_the_buffer_and_own_does_not() -> None:
    x = jnp.ones(3)
    assert buffer_pointers(jax.device_put(x, x.device)) == buffer_pointers(x)
    assert not buffer_pointers(jax.device_put(x, x.device, may_alias=False)) & buffer_pointers(x)
    assert not buffer_pointers(own(x)) & buffer_pointers(x)


def test_3_a_sensor_that_reuses_its_array_corrupts_no_record() -> None:
    sensor, collector = np.zeros(1000, np.float32), Collector(np.zeros(1000, np.float32), capacity=8, chunk=4)
    for tick in range(4):
        sensor[:] = tick
        collector.collect(sensor, version=0)
    sensor[:] = -1
    chunk = collector.drain()
    assert chunk is not None
    buffer = ring_buffer(8, example=sensor)
    state = jax.jit(buffer.add)(buffer.init(sensor), chunk.records.data, chunk.count)
    collector.collect(sensor, version=1)  # goes to a new block, since the drained one may be aliased
    assert state.records[:4, 0].tolist() == [0, 1, 2, 3]
    assert not jnp.any(state.records == -1)


def test_3_a_drained_block_cannot_be_written_to() -> None:
    collector = Collector(0.0, capacity=8, chunk=2)
    collector.collect(1.0, version=0)
    chunk = collector.drain()
    assert chunk is not None
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(chunk.records.data)[0] = 5


def test_4_one_buffer_twice_cannot_be_donated_and_own_parts_them() -> None:
    x = jnp.ones(3)
    step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    with pytest.raises(Exception, match="donate the same buffer twice"):
        step({"params": x, "target": x})
    assert step(own({"params": jnp.ones(3), "target": jnp.ones(3)}))["target"].tolist() == [2, 2, 2]
    shared = jnp.ones(3)
    assert step(own({"params": shared, "target": shared}))["target"].tolist() == [2, 2, 2]


def test_4_an_optimizer_that_starts_from_the_parameters_trains_with_donation() -> None:
    def pull_back(updates: Any, state: Any, params: Any = None) -> Any:
        return jax.tree.map(lambda update, param, start: update - (param - start), updates, params, state), state

    tx = optax.chain(optax.GradientTransformation(lambda params: params, pull_back), optax.sgd(0.1))
    check_trainer(gradient_trainer(loss_fn, tx), {"policy": jnp.zeros(3)}, BATCH)


def test_5_a_live_view_stops_a_donation_and_our_metrics_hold_none() -> None:
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    viewed = jnp.ones(1000)
    view = np.asarray(viewed)
    step(viewed)
    assert not viewed.is_deleted()
    assert view[0] == 1

    ours, state = programs(), first_state()
    state, first = ours.chunk(state, BATCH, 0, KEY)
    loss = np.asarray(first["loss"])
    ours.chunk(state, BATCH, 1, KEY)
    assert all(leaf.is_deleted() for leaf in ours.plan.donated_part(state).values())
    assert np.isfinite(loss)


def test_6_publishing_waits_until_every_leaf_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    store = SnapshotStore({"policy": jnp.zeros(3)})
    waited_for: list[Any] = []
    versions: list[int] = []

    def block(tree: Any) -> Any:
        waited_for.append(tree)
        versions.append(store.latest.version)
        return tree

    monkeypatch.setattr(jax, "block_until_ready", block)
    new = jnp.ones(3)
    store.publish({"policy": new}, step=1)
    assert [leaf is new for leaf in jax.tree.leaves(waited_for[0])] == [True]
    assert versions == [0], "readers saw the new version before it was ready"


@pytest.mark.parametrize(
    "other",
    [jnp.asarray(1.0), jnp.float16(1), jnp.ones(1), jax.device_put(jnp.float32(1), jax.devices()[1])],
    ids=["weak type", "dtype", "shape", "sharding"],
)
def test_7_what_would_compile_again_is_refused_and_what_would_not_is_not_traced_again(other: jax.Array) -> None:
    store = SnapshotStore({"policy": jnp.float32(0)})
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def infer(params: Any) -> Any:
        return params + 1

    infer(store.latest.params["policy"])
    infer(store.publish({"policy": jnp.float32(1)}, step=1).params["policy"])
    with pytest.raises(PublishMismatchError, match="so that inference need not compile"):
        store.publish({"policy": other}, step=2)


def test_7_a_chunk_publishes_in_the_form_of_version_0() -> None:
    ours, state = programs(), first_state()
    store = SnapshotStore(ours.publish(state))
    state, _ = ours.chunk(state, BATCH, 0, KEY)
    assert store.publish(ours.publish(state), step=1).version == 1
    assert store.latest.params["policy"].committed is True


def test_11_a_publish_transform_is_one_program() -> None:
    calls: list[int] = []

    def publish(state: Any) -> Any:
        calls.append(0)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), state.params)

    ours = compile_trainer(TRAINER._replace(publish=publish), take_all, first_state(), BATCH, steps=1)
    traced = len(calls)
    for _ in range(3):
        assert ours.publish(first_state())["policy"].dtype == jnp.bfloat16
    assert len(calls) == traced


def test_15_functions_in_state_compile_again_and_ours_holds_none() -> None:
    assert optax.adam(1e-3) != optax.adam(1e-3)
    one, other = (gradient_trainer(loss_fn, optax.adam(1e-3)).init(KEY, {"policy": jnp.zeros(3)}) for _ in range(2))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    chex.clear_trace_counter()
    step = jax.jit(chex.assert_max_traces(TRAINER.step, n=1))
    step(one, BATCH)
    step(other, BATCH)
