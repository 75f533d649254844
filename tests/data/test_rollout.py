from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pamiq_jax.data import rollout_buffer
from pamiq_jax.errors import InvalidValueError

KEY = jax.random.key(0)


def programs(buffer: Any) -> Any:
    return jax.jit(buffer.add), jax.jit(buffer.sample, static_argnums=1)


BUFFERS = {bootstrap: rollout_buffer(3, bootstrap=bootstrap) for bootstrap in (0, 1, 2)}
PROGRAMS = {bootstrap: programs(buffer) for bootstrap, buffer in BUFFERS.items()}


@pytest.mark.parametrize("bootstrap", BUFFERS)
@settings(max_examples=30)
@given(counts=st.lists(st.integers(1, 3), max_size=12))
def test_runs_that_wait_for_length_new_records_learn_from_none_twice(bootstrap: int, counts: list[int]) -> None:
    buffer, (add, sample), rows = BUFFERS[bootstrap], PROGRAMS[bootstrap], 3 + bootstrap
    state, number, last, learned_from = buffer.init(jnp.int32(0)), 0, 0, list[int]()
    for count in counts:
        state, number = add(state, jnp.arange(number, number + 3), count), number + count
        if number - last < 3 or int(buffer.size(state)) < buffer.required(rows):
            continue
        rollout, last = sample(state, rows, 0, KEY).tolist(), number
        assert rollout == list(range(number - rows, number))
        learned_from += rollout[:3]
    assert len(learned_from) == len(set(learned_from))


def test_the_bootstrap_tail_comes_first_in_the_next_rollout() -> None:
    buffer = rollout_buffer(4, bootstrap=2)
    first = buffer.add(buffer.init(0), jnp.arange(6), 6)
    second = buffer.add(first, jnp.arange(6, 10), 4)
    rollouts = [buffer.sample(state, 6, 0, KEY).tolist() for state in (first, second)]
    assert rollouts == [[0, 1, 2, 3, 4, 5], [4, 5, 6, 7, 8, 9]]


def test_each_step_of_a_run_has_the_same_rollout_in_order() -> None:
    buffer = rollout_buffer(2)
    state = buffer.add(buffer.add(buffer.init(0), jnp.arange(3), 3), jnp.arange(3, 5), 2)
    assert [buffer.sample(state, 3, position, KEY).tolist() for position in range(3)] == [[2, 3, 4]] * 3
    assert buffer.stable_in_run


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rollout_buffer(0), r"rollout_buffer\(length\) is 0, expected an integer from 1"),
        (lambda: rollout_buffer(4, bootstrap=-1), r"rollout_buffer\(bootstrap\) is -1, expected an integer from 0"),
        (lambda: rollout_buffer(4.0), r"rollout_buffer\(length\) is 4.0, expected an integer"),  # type: ignore[arg-type]
        (lambda: rollout_buffer(2**30), r"rollout_buffer\(capacity\) is 1073741825"),
        (lambda: rollout_buffer(4).required(4), "batch_size of a rollout_buffer is 4, expected 5, length=4 and boot"),
        (lambda: rollout_buffer(1).sample(rollout_buffer(1).init(0), 3, 0, KEY), "rollout_buffer is 3, expected 2"),
    ],
)
def test_arguments_outside_their_range_are_refused(call: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        call()
