from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.envs import IteratorEnvironment, iterator_source
from pamiq_jax.errors import InvalidValueError
from tests.runtime.fakes import assert_equal_trees


def shuffled(epoch: int) -> Iterator[np.ndarray[Any, Any]]:
    return iter(np.random.default_rng(epoch).permutation(7).astype(np.float32))


class Loader:
    """An iterator that knows where it is, and counts what it is asked for."""

    asked = 0

    def __init__(self, epoch: int) -> None:
        self.items, self.position = list(shuffled(epoch)), 0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self.position == len(self.items):
            raise StopIteration
        Loader.asked += 1
        self.position += 1
        return self.items[self.position - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: Any) -> None:
        self.position = int(state["position"])


def watched(environment: IteratorEnvironment, count: int) -> list[float]:
    return [(float(environment.observe()), environment.affect(()))[0] for _ in range(count)]


@pytest.mark.parametrize("make", [shuffled, Loader])
@pytest.mark.parametrize("seen", [0, 5, 7, 10])
def test_it_goes_on_with_the_item_that_would_have_come_next(make: Any, seen: int) -> None:
    environment, other = IteratorEnvironment(make), IteratorEnvironment(make)
    environment.reset(0)
    watched(environment, seen)
    state = environment.save_state()
    other.reset(3)
    Loader.asked = 0
    other.load_state(state)
    assert Loader.asked <= 2  # a loader that knows its place reads nothing again
    assert watched(environment, 15) == watched(other, 15)


def test_without_repeat_it_ends() -> None:
    environment = IteratorEnvironment(shuffled, repeat=False)
    watched(environment, 6)
    state = environment.save_state()
    watched(environment, 1)
    with pytest.raises(InvalidValueError, match=r"repeat\) is False, expected True for more than its 7 items"):
        environment.observe()
    environment.load_state(state)
    assert len(watched(environment, 1)) == 1


def test_what_is_no_iterator_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"list.*an iterator; return iter\(...\) of it"):
        IteratorEnvironment(lambda epoch: [1.0])  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidValueError, match=r"make\) is 'list_iterator', expected a function .*lambda epoch: iter"):
        iterator_source(iter([1.0]), "items")  # type: ignore[arg-type]
    with pytest.raises(TypeError) as caught:
        IteratorEnvironment(lambda: iter([1.0]))  # type: ignore[arg-type, misc]
    assert "called with the number of the epoch" in str(caught.value.__notes__)
    with pytest.raises(InvalidValueError, match="at least one in epoch 0"):
        IteratorEnvironment(lambda epoch: iter(()))


@pytest.mark.parametrize("make", [shuffled, Loader])
def test_training_on_it_is_resumed_bit_for_bit(make: Any, tmp_path: Path) -> None:
    def loss_fn(params: Any, batch: Any, rng_key: Any) -> Any:
        return jnp.mean((params["m"] - batch) ** 2), {}

    def system() -> pj.System:
        trainer = pj.gradient_trainer(loss_fn, optax.sgd(0.5))
        return pj.System(
            models={"m": pj.Model(jnp.zeros(()))},
            buffers={"items": pj.rollout_buffer(3, bootstrap=0)},
            trainers={"fit": pj.Schedule(trainer, data="items", batch_size=3)},
            interaction=iterator_source(make, "items"),
        )

    whole = pj.run_lockstep(system(), 24)
    pj.run_lockstep(system(), 10, directory=tmp_path)
    resumed = pj.run_lockstep(system(), 14, directory=tmp_path, resume=True)
    assert whole.snapshot.version == 8  # each item was learned from once
    assert_equal_trees(dict(resumed.snapshot.params), dict(whole.snapshot.params))
    assert_equal_trees(resumed.learner.buffers["items"].state, whole.learner.buffers["items"].state)
