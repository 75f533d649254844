from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError, NonFiniteError, TooManyBadUpdatesError, WorkerError
from pamiq_jax.trainer import guard
from tests.runtime.fakes import learning_system
from tests.runtime.scanning import AGENT, learner, loss_fn, small_system, world

COUNTERS = ("runs", "chunk", "finished", "steps", "phase", "last", "after")


def plain(tree: Any) -> Any:
    """Return the tree with keys as numbers."""
    return jax.tree.map(
        lambda leaf: jax.random.key_data(leaf) if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key) else leaf,
        tree,
    )


def assert_close(first: Any, second: Any) -> None:
    first, second = plain(first), plain(second)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, other in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-5)  # as XLA rounds what it fuses


def assert_same_run(scanned: pj.ScannedResult, stepped: pj.LockstepResult) -> None:
    """Counters are equal, numbers as good as."""
    for name, run in stepped.learner.trainers.items():
        other = scanned.learner.trainers[name]
        for field in COUNTERS:
            assert getattr(other, field) == getattr(run, field), field
        assert_close((other.state, other.data_key), (run.state, run.data_key))
    assert scanned.learner.turn == stepped.learner.turn
    assert scanned.buffers == stepped.buffers
    for name, buffer in stepped.learner.buffers.items():
        assert_close(scanned.learner.buffers[name]._asdict(), buffer._asdict())
    assert scanned.snapshot[:2] == stepped.snapshot[:2]
    assert scanned.snapshot.published_at == stepped.snapshot.published_at
    assert_close(dict(scanned.snapshot.params), dict(stepped.snapshot.params))
    rows = stepped.metrics[len(stepped.metrics) - len(scanned.metrics) :]  # a resumed run has its own alone
    assert [name for name, _ in scanned.metrics] == [name for name, _ in rows]
    assert_close([row for _, row in scanned.metrics], [row for _, row in rows])
    assert_close(scanned.actor._asdict(), stepped.actor._asdict())


def three_trainers() -> pj.System:
    """Two train the same model, one reads it; one gives priorities, one starts by the clock, two publish together."""

    def critic_loss(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        value = batch.records["observation"] @ params["critic"]
        wanted = jnp.sum(batch.records["observation"] @ params["policy"], axis=-1, keepdims=True)
        error = jnp.mean((value - wanted) ** 2, axis=(1, 2))
        return jnp.mean(error * batch.weights), {"priorities": error}

    critic = pj.gradient_trainer(critic_loss, optax.sgd(0.1), trains=("critic",), reads=("policy",))
    policy = learner(trains=("policy",))
    return small_system(
        models={"policy": pj.Model(jnp.zeros((2, 2))), "critic": pj.Model(jnp.ones((2, 1)), dtype=jnp.bfloat16)},
        buffers={"seen": pj.ring_buffer(8, sampling="epochs"), "urgent": pj.prioritized_buffer(8, alpha=1.0)},
        trainers={
            "first": pj.Schedule(policy, data="seen", batch_size=2, when=pj.samples_per_insert(1, max_debt=8)),
            "second": pj.Schedule(policy, data="seen", batch_size=2, when=pj.every_seconds(0.004), group="both"),
            "critic": pj.Schedule(
                critic, data="urgent", batch_size=3, steps=2, steps_per_chunk=1, after=("first",), group="both",
                when=pj.min_size(4) & ~pj.when(lambda now, last: now.size < 3),
            ),
        },
    )  # fmt: skip


def rollouts() -> pj.System:
    """Rollouts that no round fits, each moved in pieces of three, on a slow clock."""
    return small_system(
        buffers={"seen": pj.rollout_buffer(6)},
        trainers={"fit": pj.Schedule(learner(), data="seen", batch_size=7, steps=2, steps_per_chunk=2)},
        interaction=pj.Interaction(AGENT, world(), interval_seconds=0.25),
        queues={"seen": pj.Queue(chunk=3)},
    )


class TestItIsLockstep:
    @pytest.mark.parametrize(
        ("make", "options"), [(three_trainers, {}), (rollouts, {"train_every": 4, "train_ticks": 2})]
    )
    def test_every_tick_is_the_same(self, make: Any, options: dict[str, int]) -> None:
        stepped = pj.run_lockstep(make(), 24, seed=3, **options)
        scanned = pj.run_scanned(make(), 24, seed=3, **options)
        assert scanned.snapshot.version > 2
        assert_same_run(scanned, stepped)

    def test_without_a_trainer_it_only_acts(self) -> None:
        result = pj.run_scanned(small_system(trainers={}), 6)
        assert (result.buffers["seen"].size, result.metrics, result.snapshot.version) == (6, (), 0)
        assert result.learner.buffers["seen"].state.records.is_first[:6].tolist() == [True] + [False] * 5

    def test_nothing_to_do(self) -> None:
        assert pj.run_scanned(small_system(), 0).snapshot.version == 0


class TestStates:
    def test_lockstep_and_launch_go_on_from_it(self, tmp_path: Path) -> None:
        system = small_system()
        pj.run_scanned(system, 10, directory=tmp_path)
        stepped = pj.run_lockstep(system, 5, directory=tmp_path, resume=True)
        scanned = pj.run_scanned(system, 5, directory=tmp_path, resume=True)
        assert_same_run(scanned, pj.run_lockstep(system, 20))
        assert stepped.actor.tick == 15
        with pj.launch(system, directory=tmp_path, resume=True) as run:
            assert run.wait_for_version(scanned.snapshot.version + 1, timeout=60).step > scanned.snapshot.step


class TestFailures:
    def test_parameters_that_are_not_finite_are_not_published(self) -> None:
        trainer = learner(learning_rate=float("inf"))
        schedule = pj.Schedule(trainer, data="seen", batch_size=2)
        with pytest.raises(WorkerError, match="trainer fit") as caught:
            pj.run_scanned(small_system(trainers={"fit": schedule}), 4)
        assert isinstance(caught.value.__cause__, NonFiniteError)

    def test_a_guard_that_skips_for_too_long_is_a_failure(self) -> None:
        def broken(params: Any, batch: Any, rng_key: jax.Array) -> Any:
            loss, metrics = loss_fn(params, batch, rng_key)
            return loss * jnp.nan, metrics

        trainer = guard(pj.gradient_trainer(broken, optax.sgd(0.1)))
        schedule = pj.Schedule(trainer, data="seen", batch_size=2)
        with pytest.raises(WorkerError, match="fit") as caught:
            pj.run_scanned(small_system(trainers={"fit": schedule}), 14)
        assert isinstance(caught.value.__cause__, TooManyBadUpdatesError)


def _python_agent() -> Any:
    class Idle:
        extras: dict[str, Any] = {}  # noqa: RUF012

        def reset(self, seed: int) -> None: ...

        def act(self, params: Any, observation: Any) -> Any:
            return np.zeros((2, 2), np.float32), {}

    return pj.Interaction(Idle(), world())


def _schedule(**options: Any) -> Any:
    return {"trainers": {"fit": pj.Schedule(**({"trainer": learner(), "data": "seen", "batch_size": 2} | options))}}


def _untraceable(now: Any, last: Any) -> bool:
    return now.size > 3 and now.seen > 3


REFUSED: dict[str, tuple[Any, str]] = {
    "Python environment": (learning_system, r"environment\) is .World., expected .*JaxEnvironment\(reset, step"),
    "Python agent": (lambda: small_system(interaction=_python_agent()), r"agent\) is .Idle., expected .*Agent\(act\)"),
    "no interaction": (
        lambda: pj.System({"policy": pj.Model(jnp.zeros(()))}), r"System\(interaction\) is \[\], expected one",
    ),
    "host memory": (
        lambda: small_system(buffers={"seen": pj.ring_buffer(16, placement="host")}), "placement is .host.*leave `pl",
    ),
    "plain Python": (
        lambda: small_system(**_schedule(trainer=learner()._replace(compiled=False))), "'fit' compiled is False",
    ),
    "condition": (lambda: small_system(**_schedule(when=_untraceable)), "when is when.*_untraceable.*without `if`"),
    "device": (
        lambda: small_system(models={"policy": pj.Model(jnp.zeros((2, 2)), device=jax.devices()[1])}), "y. device",
    ),
    "epochs": (
        lambda: small_system(
            buffers={"seen": pj.ring_buffer(16, sampling="epochs")}, **_schedule(steps=4, steps_per_chunk=2)
        ),
        "steps_per_chunk is 2, expected 4, .*write steps_per_chunk=4",
    ),
}  # fmt: skip


class TestRefused:
    @pytest.mark.parametrize("name", REFUSED)
    def test_what_cannot_be_traced_says_so_with_a_remedy(self, name: str) -> None:
        make, match = REFUSED[name]
        with pytest.raises(InvalidValueError, match=match):
            pj.run_scanned(make(), 4)

    def test_numbers(self) -> None:
        with pytest.raises(InvalidValueError, match=r"interactions\) is 10, expected a multiple of train_every=4"):
            pj.run_scanned(small_system(), 10, train_every=4)
        with pytest.raises(InvalidValueError, match=r"interactions\) is 10, expected a multiple of train_every=4"):
            pj.run_lockstep(small_system(), 10, train_every=4)
        system = small_system(queues={"seen": pj.Queue(capacity=3)})
        with pytest.raises(InvalidValueError, match=r"train_every\) is 4, expected at most 3, .*Queue"):
            pj.run_scanned(system, 8, train_every=4)
