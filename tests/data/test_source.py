from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, RecordMismatchError
from tests.runtime.fakes import assert_equal_trees

DATA = {"x": np.arange(10, dtype=np.float32), "index": np.arange(10, dtype=np.int32)}


def remembering_trainer(rows: int) -> Any:
    """A trainer whose state is what it was given, batch by batch."""

    def init(rng_key: jax.Array, params: Any) -> Any:
        return pj.TrainerState(params, jnp.full((rows, 4), -1, jnp.int32), jnp.int32(0), rng_key)

    def step(state: Any, batch: Any) -> Any:
        drawn = state.opt_state.at[state.step].set(batch["index"])
        return state.replace(opt_state=drawn, step=state.step + 1), {"x": jnp.mean(batch["x"])}

    return pj.custom_trainer(init, step)


def offline(source: Any, *, steps: int = 3, chunk: int = 1, rows: int = 20) -> pj.System:
    schedule = pj.Schedule(remembering_trainer(rows), data="set", batch_size=4, steps=steps, steps_per_chunk=chunk)
    return pj.System(models={"m": pj.Model(jnp.zeros(()))}, buffers={"set": source}, trainers={"fit": schedule})


def drawn(result: Any) -> np.ndarray[Any, Any]:
    state = result.learner.trainers["fit"].state
    return np.asarray(state.opt_state)[: int(state.step)].reshape(-1)


@pytest.mark.parametrize("placement", ["device", "host"])
def test_epochs_go_on_from_run_to_run(placement: Any) -> None:
    source = pj.array_source(DATA, placement=placement)
    result = pj.run_lockstep(offline(source, chunk=1), 20)  # runs of 12 records, epochs of 10
    order = drawn(result)
    assert result.snapshot.version == 6
    epochs = order.reshape(8, 10)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs.tolist())
    assert len({tuple(epoch) for epoch in epochs.tolist()}) == 8


def test_in_order_is_in_order() -> None:
    order = drawn(pj.run_lockstep(offline(pj.array_source(DATA, sampling="in_order")), 10))
    assert order.tolist() == list(range(10)) * 4


@pytest.mark.parametrize("sampling", ["epochs", "uniform"])
def test_a_resumed_run_goes_on_with_the_next_batch(tmp_path: Path, sampling: Any) -> None:
    system = offline(pj.array_source(DATA, sampling=sampling), rows=20)
    whole = pj.run_lockstep(system, 20, seed=1)
    pj.run_lockstep(system, 7, seed=1, directory=tmp_path)
    resumed = pj.run_lockstep(system, 13, seed=1, directory=tmp_path, resume=True)
    assert_equal_trees(resumed.learner.trainers["fit"].state, whole.learner.trainers["fit"].state)
    assert_equal_trees(resumed.metrics, whole.metrics[7:])


def test_a_launched_system_learns_from_it_without_anybody_who_acts() -> None:
    with pj.launch(offline(pj.array_source(DATA), rows=10_000)) as run:
        assert run.wait_for_version(2, timeout=60).version >= 2
        assert run.status.buffers["set"].size == 10


def test_recorded_data_is_a_source(tmp_path: Path) -> None:
    system = pj.System({"m": pj.Model(jnp.zeros(()))}, {"set": pj.ring_buffer(9, example={"x": 0.0, "index": 0})})
    with pj.launch(system, directory=tmp_path, record=True) as run:
        for index in range(6):
            run.collect("set", {"x": float(index), "index": index})
    source = pj.array_source(pj.Recording(tmp_path).records("set"), sampling="in_order")
    result = pj.run_lockstep(offline(source), 3)
    assert drawn(result).tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]
    assert result.learner.buffers["set"].state.records.is_first.tolist() == [True] + [False] * 5


def test_what_is_collected_live_is_added_to_it() -> None:
    system = offline(pj.array_source(DATA, capacity=12, sampling="uniform"), rows=10_000)
    with pj.launch(system) as run:
        run.collect("set", {"x": 0.5, "index": 10})
        run.wait_for_version(3, timeout=60)
    status = run.status.buffers["set"]
    assert (status.size, status.inserted, status.seen) == (11, 11, 1)


@pytest.mark.parametrize(
    ("arrays", "options", "match"),
    [
        ({"x": np.zeros(3), "y": np.zeros(2)}, {}, "all of one length"),
        ({"x": np.float32(1)}, {}, r"leaves \[n, ...\]"),
        ({"x": [1.0, 2.0]}, {}, r"leaves \[n, ...\].*make an array of it by np.asarray"),
        ({"x": np.array([2**40, 1])}, {}, r"\['x'\] is 'from 1 to 1099511627776', .* that int32 holds.*jax_enable_x64"),
        ({"x": np.array([2**32, 1], np.uint64)}, {}, "that uint32 holds, which is what JAX stores uint64 in; scale"),
        (np.array([1e300, np.nan]), {}, "'from 0.0 to 1e.300', expected numbers that float32 holds"),
        (np.zeros((0, 2)), {}, "0 records"),
        (np.zeros(3), {"capacity": 2}, r"array_source\(capacity\) is 2"),
        (np.zeros(3), {"sampling": "shuffled"}, "'uniform', 'epochs', 'in_order'"),
    ],
)
def test_bad_arrays_are_refused(arrays: Any, options: Any, match: str) -> None:
    with pytest.raises(InvalidValueError, match=match):
        pj.array_source(arrays, **options)


def test_a_form_that_does_not_fit_and_mixed_places_are_refused() -> None:
    with pytest.raises(RecordMismatchError, match="holds other records than it is to be fed"):
        pj.array_source(DATA).init({"x": 0.0, "index": np.zeros(2, np.int32)})
    trainer = pj.gradient_trainer(lambda params, batch, key: (jnp.float32(0), {}), optax.sgd(0.1))
    schedule = pj.Schedule(trainer, data={"old": "old", "new": "new"}, batch_size=2)
    buffers = {"old": pj.array_source(DATA), "new": pj.ring_buffer(9, example=0.0)}
    with pytest.raises(InvalidValueError, match=r"'old'.*all or none .*sampling=.uniform"):
        pj.System({"m": pj.Model(jnp.zeros(()))}, buffers, {"fit": schedule})


def test_what_fits_is_stored_in_the_dtype_of_jax_and_text_is_refused() -> None:
    source = pj.array_source({"x": np.array([np.inf, np.nan, 0.1]), "count": np.array([3, -4, 5])})
    records = source.init(source.example).records
    np.testing.assert_array_equal(records["x"], np.array([np.inf, np.nan, 0.1], np.float32))
    assert records["count"].tolist() == [3, -4, 5]
    with pytest.raises(RecordMismatchError, match=r"\['text'\] is an array of <U1, expected one of numbers; encode"):
        pj.array_source({"text": np.array(["a", "b"])})
