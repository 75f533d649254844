"""A state that fits only in part: what counts on each other is taken whole, or begins anew, and the report says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore
from pamiq_jax.data import reservoir_buffer
from pamiq_jax.lifecycle import TrainerPhase
from pamiq_jax.runtime.saved import restored_cut
from tests.runtime.resuming import quick_compiles


@pytest.fixture(scope="module", autouse=True)
def few_compiles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with quick_compiles(tmp_path_factory.mktemp("programs")):
        yield


class Fives:
    """An environment that never shows a zero, so that a zero in a batch is one that was made up."""

    def __init__(self, reward: bool = False) -> None:
        feedback = {"reward": np.float32(0)} if reward else {}
        self.spec = pj.EnvironmentSpec(observation=np.float32(0), action=np.float32(0), feedback=feedback)
        self._feedback = {"reward": np.float32(7)} if reward else {}

    def reset(self, seed: int) -> None:
        pass

    def observe(self) -> Any:
        return np.float32(5)

    def affect(self, action: Any) -> Any:
        return self._feedback

    def close(self) -> None:
        pass


def loss_fn(params: Any, batch: Any, rng_key: Any) -> Any:
    records = getattr(batch, "records", batch)
    least = jnp.stack([leaf.min() for name, leaf in sorted(records.items()) if name != "action"]).min()
    metrics = {"least": least} if records is batch else {"least": least, "priorities": jnp.ones(4)}
    return jnp.mean((params["mean"].sum() - records["observation"]) ** 2), metrics


def system(buffer: pj.Buffer[Any, Any, Any], name: str = "seen", size: int = 1, **options: Any) -> pj.System:
    reward = options.pop("reward", False)
    schedule: dict[str, Any] = {"batch_size": 4, "when": pj.min_new(4), **options}
    return pj.System(
        models={"mean": pj.Model({"body": jnp.zeros(2), "head": jnp.zeros(size)})},
        buffers={name: buffer},
        trainers={"fit": pj.Schedule(trainer(), data=name, **schedule)},
        interaction=pj.Interaction(pj.Agent(lambda params, carry, seen, key: (carry, seen, {})), Fives(reward)),
    )


def trainer() -> Any:
    def loss(params: Any, batch: Any, rng_key: Any) -> Any:
        value, metrics = loss_fn({"mean": jnp.concatenate(list(params["mean"].values()))}, batch, rng_key)
        return value, metrics

    return pj.gradient_trainer(loss, optax.adam(0.1))


class Change(NamedTuple):
    before: Callable[[], pj.System]
    after: Callable[[], pj.System]
    says: str


def of_buffers(before: Any, after: Any) -> Change:
    return Change(lambda: system(before()), lambda: system(after()), "buffer 'seen' begins anew: ['buffers']['seen']")


CHANGES = {
    "ring": of_buffers(lambda: pj.ring_buffer(16), lambda: pj.ring_buffer(64)),
    "in order": of_buffers(
        lambda: pj.ring_buffer(64, sampling="in_order"), lambda: pj.ring_buffer(32, sampling="in_order")
    ),
    "epochs": of_buffers(lambda: pj.ring_buffer(16, sampling="epochs"), lambda: pj.ring_buffer(32, sampling="epochs")),
    "reservoir": of_buffers(lambda: reservoir_buffer(16, seed=1), lambda: reservoir_buffer(64, seed=1)),
    "prioritized": of_buffers(lambda: pj.prioritized_buffer(16), lambda: pj.prioritized_buffer(64)),
    "other kind": of_buffers(lambda: pj.ring_buffer(16), lambda: reservoir_buffer(16, seed=1)),
    "new field": Change(
        lambda: system(pj.ring_buffer(64)),
        lambda: system(pj.ring_buffer(64), reward=True),
        "buffer 'seen' begins anew: ['buffers']['seen']['state'].records.data['reward']: nothing is stored",
    ),
    "other name": Change(
        lambda: system(pj.ring_buffer(64)),
        lambda: system(pj.ring_buffer(64), "other"),
        "buffer 'other' begins anew: nothing of it is stored",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_buffer_that_does_not_fit_begins_anew_and_what_counts_on_it_too(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change = CHANGES[kind]
    pj.run_lockstep(change.before(), 41, directory=tmp_path)
    result = pj.run_lockstep(change.after(), 20, resume=tmp_path, partial=True)
    (buffer,) = result.buffers.values()
    assert 20 <= buffer.seen <= 22  # what waited is of a record more, where its form is the same
    assert len(result.metrics) >= 2, "the trainer runs on what is new"
    assert [float(metrics["least"]) for _, metrics in result.metrics] == [5.0] * len(result.metrics)
    assert change.says in caplog.text


def test_the_report_says_what_begins_anew_and_takes_the_rest(tmp_path: Path) -> None:
    pj.run_lockstep(system(pj.ring_buffer(16)), 41, directory=tmp_path)
    compiled = pj.compile_system(system(pj.ring_buffer(64)))
    cut, report = restored_cut(compiled, StateStore(tmp_path).read(1), partial=True)
    (line, *_) = report.differences
    assert line == (
        "buffer 'seen' begins anew: ['buffers']['seen']['state'].records.data['action']: "
        "expected float32[64], stored is float32[16], and 3 more"
    )
    assert not [leaf for leaf in report.taken if leaf.startswith("['buffers']")]
    fit = cut.learner.trainers["fit"]
    assert (fit.runs, fit.state.step) == (10, 10)
    assert (fit.last[""].inserted, fit.last[""].seen, cut.learner.buffers["seen"].inserted) == (0, 0, 0)


def test_a_run_that_was_under_way_is_not_gone_on_with_and_what_waited_comes_first(tmp_path: Path) -> None:
    def within_a_run(capacity: int) -> pj.System:
        return system(pj.ring_buffer(capacity, sampling="in_order"), steps=6, steps_per_chunk=2)

    pj.run_lockstep(within_a_run(16), 5, directory=tmp_path)
    value = StateStore(tmp_path).read(1)
    assert value["leaves"]["['trainers']['fit']['chunk']"] == 2
    cut, _ = restored_cut(pj.compile_system(within_a_run(32)), value, partial=True)
    fit = cut.learner.trainers["fit"]
    assert (fit.phase, fit.chunk) == (TrainerPhase.WAITING, 0)
    assert fit.reason == "restored within a run, but a buffer of its has begun anew"
    records, counts = cut.waiting["seen"]
    assert tuple(counts) == (1, 0, 1)
    assert records.records.is_first.tolist() == [True]
    result = pj.run_lockstep(within_a_run(32), 6, resume=tmp_path, partial=True)
    assert [float(metrics["least"]) for _, metrics in result.metrics] == [5.0] * len(result.metrics)


def test_who_learns_in_proportion_to_what_comes_owes_nothing(tmp_path: Path) -> None:
    when = pj.samples_per_insert(1, tolerance=4) & pj.min_size(4)
    pj.run_lockstep(system(pj.ring_buffer(16), when=when), 40, directory=tmp_path)
    whole = pj.run_lockstep(system(pj.ring_buffer(32), when=when), 20)
    result = pj.run_lockstep(system(pj.ring_buffer(32), when=when), 20, resume=tmp_path, partial=True)
    assert abs(len(result.metrics) - len(whole.metrics)) <= 1


def test_an_optimizer_beside_other_parameters_begins_anew(tmp_path: Path) -> None:
    pj.run_lockstep(system(pj.ring_buffer(16)), 40, directory=tmp_path)
    compiled = pj.compile_system(system(pj.ring_buffer(16), size=3))
    cut, report = restored_cut(compiled, StateStore(tmp_path).read(1), partial=True)
    fit = cut.learner.trainers["fit"]
    state: Any = fit.state
    assert report.anew["optimizer of trainer 'fit'"].endswith("expected float32[3], stored is float32[1], and 2 more")
    moments = state.opt_state[0]
    assert (int(state.step), int(moments.count), float(jnp.abs(moments.mu["mean"]["body"]).max())) == (0, 0, 0.0)
    assert float(state.params["mean"]["body"][0]) != 0.0, "a body stays under another head"
    assert state.params["mean"]["head"].tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_array_equal(cut.snapshot.params["mean"]["body"], state.params["mean"]["body"])
    assert fit.last[""].inserted > 0, "the buffer is as it was"
