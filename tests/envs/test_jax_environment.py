from __future__ import annotations

import itertools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax.envs import JaxEnvironment
from pamiq_jax.errors import InvalidValueError, RecordMismatchError, StepStructureError, UnknownNameError
from pamiq_jax.runtime import PureEnvironment, Stateful
from tests.runtime.scanning import reset, step, world

ACTION = np.full((2, 2), 0.5, np.float32)


def lived(environment: Any, ticks: int) -> list[Any]:
    return [(np.array(environment.observe()), environment.affect(ACTION)) for _ in range(ticks)]


def equal(first: Any, second: Any) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(*map(jax.tree.leaves, (first, second)), strict=True))


def test_equal_seeds_give_equal_lives_and_the_copies_differ() -> None:
    environment = world()
    assert isinstance(environment, PureEnvironment)
    environment.reset(1)
    first = lived(environment, 9)
    environment.reset(1)
    assert equal(first, lived(environment, 9))
    environment.reset(2)
    assert not equal(first, lived(environment, 9))
    assert not np.array_equal(first[0][0][0], first[0][0][1])


def test_after_an_end_the_next_observation_is_of_a_new_episode_and_the_true_one_is_told() -> None:
    environment = world(info=("steps",))
    environment.reset(0)
    life = lived(environment, 8)
    assert [bool(feedback["done"].all()) for _, feedback in life] == [False] * 6 + [True, False]
    assert [int(feedback["steps"][0]) for _, feedback in life] == [1, 2, 3, 4, 5, 6, 7, 1]
    for (_, feedback), (following, _) in itertools.pairwise(life):
        assert np.array_equal(feedback["next_observation"], following) != feedback["done"].all()


def test_the_functions_are_what_it_does() -> None:
    environment = world()
    environment.reset(3)
    state = environment.functions.start(jax.random.key(3))
    for _ in range(1):
        np.testing.assert_allclose(environment.functions.observe(state), environment.observe(), rtol=1e-6)
        state, feedback = environment.functions.affect(state, ACTION)
        np.testing.assert_allclose(feedback["reward"], environment.affect(ACTION)["reward"], rtol=1e-6)


def test_it_goes_on_from_a_saved_state_bit_for_bit() -> None:
    environment, other = world(), world()
    assert isinstance(environment, Stateful)
    environment.reset(0)
    lived(environment, 4)
    saved = environment.save_state()
    other.reset(9)
    other.load_state(saved)
    assert equal(lived(environment, 6), lived(other, 6))
    with pytest.raises(StepStructureError, match=r"saved of a JaxEnvironment has another form: leaf \[0\]"):
        other.load_state([leaf[:1] for leaf in saved])


def test_without_autoreset_and_num_envs_the_step_is_taken_as_it_is() -> None:
    environment = world(num_envs=None, autoreset=False)
    assert set(environment.spec.feedback) == {"reward", "done"}
    assert environment.spec.observation.shape == (2,)
    with pytest.raises(InvalidValueError, match=r"JaxEnvironment.world is None, .*call `reset\(seed\)` first"):
        environment.observe()


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda out: out[:4], StepStructureError, "step returned tuple of 4, expected .observation, state, reward"),
        (lambda out: (out[0][:1], *out[1:]), RecordMismatchError, "another observation than its reset: .*float32.2."),
        (
            lambda out: (out[0], {"place": out[0]}, *out[2:]),
            StepStructureError,
            "another state than its reset: missing",
        ),
        (lambda out: (*out[:3], 1.0, out[4]), InvalidValueError, r"done is .float32\[\]., expected bool\[\]"),
        (lambda out: (*out[:2], out[0], *out[3:]), InvalidValueError, r"reward is .float32\[2\]., .*num_envs adds"),
    ],
)
def test_functions_that_do_not_fit_are_refused(change: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        JaxEnvironment(reset, lambda *arguments: change(step(*arguments)), 7, action=jnp.zeros(2))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (
            {"step": lambda state, action, params, rng_key: step(state, action, params, rng_key)},
            "step, .* step.rng_key,",
        ),
        ({"step": lambda *given: (given[0], 0, 1) if given[2].sum() > 0 else given}, "where or jax.lax.cond, not with"),
        ({"reset": lambda rng_key, params: reset(rng_key, params["end"])}, "reset, .* params is None, since none"),
    ],
    ids=["another order", "an if", "no params"],
)
def test_what_a_function_raises_when_traced_has_a_note(change: dict[str, Any], note: str) -> None:
    with pytest.raises((TypeError, ValueError, IndexError, AttributeError)) as caught:
        JaxEnvironment(**{"reset": reset, "step": step, "action": jnp.zeros(2), **change})
    assert re.search(note, "\n".join(caught.value.__notes__))


def test_arguments_are_checked() -> None:
    with pytest.raises(InvalidValueError, match=r"JaxEnvironment\(num_envs\) is 0"):
        world(num_envs=0)
    with pytest.raises(UnknownNameError, match="discount"):
        world(info=("discount",))
