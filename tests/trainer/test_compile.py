from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pamiq_jax.errors import StepStructureError
from pamiq_jax.trainer import (
    Trainer,
    TrainerPrograms,
    TrainerState,
    buffer_pointers,
    compile_trainer,
    custom_trainer,
    gradient_trainer,
)
from pamiq_jax.trainer.compile import own, scan_chunk
from pamiq_jax.trainer.step_checks import check_step

DATA = jnp.linspace(0.0, 1.0, 16)
KEY = jax.random.key(3)


class Averaged(TrainerState[Any]):
    average: Any


def sample(data: Any, position: Any, rng_key: jax.Array) -> jax.Array:
    return jax.random.choice(jax.random.fold_in(rng_key, position), data, (4,))


def loss_fn(w: jax.Array, batch: jax.Array, rng_key: jax.Array) -> Any:
    error = jnp.mean((w - jnp.mean(batch) - 0.1 * jax.random.normal(rng_key)) ** 2)
    return error, {"error": error}


GRADIENT = gradient_trainer(loss_fn, optax.adam(0.1))


def averaged_trainer(publish: Callable[[Averaged], Any]) -> Trainer[Averaged, Any]:
    def init(rng_key: jax.Array, params: Any) -> Averaged:
        state = GRADIENT.init(rng_key, params)
        return Averaged(state.params, state.opt_state, state.step, rng_key, average=jnp.copy(params))

    def step(state: Averaged, batch: Any) -> Any:
        state, metrics = GRADIENT.step(state, batch)
        return state.replace(average=0.9 * state.average + 0.1 * state.params), metrics

    return custom_trainer(init, step, publish=publish)


def first_state(trainer: Trainer[Any, Any] = GRADIENT) -> Any:
    return own(trainer.init(jax.random.key(0), jnp.ones(3)))


def compiled(trainer: Trainer[Any, Any] = GRADIENT, steps: int = 1) -> TrainerPrograms[Any]:
    return compile_trainer(trainer, sample, first_state(trainer), DATA, steps=steps)


def assert_close(one: Any, other: Any) -> None:
    def numbers(leaf: Any) -> Any:
        return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf

    jax.tree.map(lambda a, b: np.testing.assert_allclose(numbers(a), numbers(b), 1e-5, 1e-6), one, other)


def test_a_chunk_of_eight_is_eight_chunks_of_one() -> None:
    at_once, mean = compiled(steps=8).chunk(first_state(), DATA, 5, KEY)
    state, one = first_state(), compiled(steps=1)
    history = []
    for offset in range(8):
        state, metrics = one.chunk(state, DATA, 5 + offset, KEY)
        history.append(float(metrics["error"]))
    assert int(at_once.step) == 8
    assert_close(at_once, state)
    assert float(mean["error"]) == pytest.approx(np.mean(history), rel=1e-5)


def test_a_chunk_is_sample_and_step_by_hand() -> None:
    state, _ = compiled(steps=2).chunk(first_state(), DATA, 7, KEY)
    by_hand = first_state()
    for position in (7, 8):
        by_hand, _ = GRADIENT.step(by_hand, sample(DATA, jnp.int32(position), KEY))
    assert_close(state, by_hand)


def test_a_chunk_repeats_bit_for_bit() -> None:
    programs = compiled(steps=4)
    one, other = (programs.chunk(first_state(), DATA, 0, KEY)[0] for _ in range(2))
    assert one.params.tolist() == other.params.tolist()


def test_what_is_donated_is_gone_and_parameters_and_data_stay() -> None:
    programs, state = compiled(), first_state()
    params = np.array(state.params)
    programs.chunk(state, DATA, 0, KEY)
    assert all(leaf.is_deleted() for leaf in programs.plan.donated_part(state).values())
    assert programs.plan.donated_part(state).keys() >= {".step", ".rng_key", ".opt_state[0].mu"}
    assert not any(leaf.is_deleted() for leaf in (state.params, DATA, KEY))
    assert state.params.tolist() == params.tolist()


def test_a_published_field_outlives_the_next_chunk() -> None:
    trainer = averaged_trainer(lambda state: {"model": state.average})
    programs, state = compiled(trainer), first_state(trainer)
    state, _ = programs.chunk(state, DATA, 0, KEY)
    published = programs.publish(state)
    assert published["model"] is state.average
    before = np.array(published["model"])
    programs.chunk(state, DATA, 1, KEY)
    assert published["model"].tolist() == before.tolist()
    assert state.opt_state[0].mu.is_deleted()


def test_what_is_published_as_a_cast_is_computed_and_its_source_donated() -> None:
    trainer = averaged_trainer(lambda state: {"model": state.average.astype(jnp.bfloat16)})
    programs, state = compiled(trainer), first_state(trainer)
    published = programs.publish(state)
    programs.chunk(state, DATA, 0, KEY)
    assert published["model"].dtype == jnp.bfloat16
    assert published["model"].tolist() == [1, 1, 1]
    assert state.average.is_deleted()


def test_published_parameters_share_their_memory_with_the_state() -> None:
    state = first_state()
    assert buffer_pointers(compiled().publish(state)) == buffer_pointers(state.params)


def test_setup_and_teardown_run() -> None:
    trainer = GRADIENT._replace(
        setup=lambda state: state.replace(params=state.params + 1),
        teardown=lambda state: state.replace(params=state.params * 0),
    )
    programs = compiled(trainer)
    assert programs.setup(first_state()).params.tolist() == [2, 2, 2]
    assert programs.teardown(first_state()).params.tolist() == [0, 0, 0]


def test_python_control_flow_gives_what_the_compiled_chunk_gives() -> None:
    step_once = jax.jit(GRADIENT.step)

    def step(state: Any, batch: Any) -> Any:
        after, metrics = step_once(state, batch)
        return (after, metrics) if float(metrics["error"]) < 1e6 else (state, metrics)

    programs = compiled(GRADIENT._replace(step=step, compiled=False), steps=3)
    start = first_state()
    state, metrics = programs.chunk(start, DATA, 0, KEY)
    same, same_metrics = compiled(steps=3).chunk(first_state(), DATA, 0, KEY)
    assert_close(state, same)
    assert float(metrics["error"]) == pytest.approx(float(same_metrics["error"]), rel=1e-5)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(start))


def test_a_chunk_is_not_traced_again() -> None:
    traces: list[int] = []

    def step(state: Any, batch: Any) -> Any:
        traces.append(0)
        return GRADIENT.step(state, batch)

    programs = compiled(GRADIENT._replace(step=step), steps=2)
    before = len(traces)
    state = first_state()
    for position in (0, np.int64(2), jnp.int32(4)):
        state, _ = programs.chunk(state, DATA, position, KEY)
    assert len(traces) == before


def test_a_scanned_chunk_composes_with_vmap() -> None:
    chunk = scan_chunk(GRADIENT, sample, 3)
    states = jax.vmap(GRADIENT.init, in_axes=(0, None))(jax.random.split(KEY, 2), jnp.ones(3))
    states, metrics = jax.vmap(chunk, in_axes=(0, None, None, None))(states, DATA, 0, KEY)
    assert states.step.tolist() == [3, 3]
    assert metrics["error"].shape == (2,)


def with_step(change: Callable[[Any], Any]) -> Trainer[Any, Any]:
    return GRADIENT._replace(step=lambda state, batch: (change(GRADIENT.step(state, batch)[0]), {}))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda state: state.replace(params=state.params[:2]),
            r"leaf .params: expected float32\[3\], got float32\[2\]",
        ),
        (lambda state: state.replace(step=jnp.float32(0)), r"leaf .step: expected int32\[\], got float32\[\]"),
        (lambda state: state.replace(opt_state=()), r"missing .opt_state\[0\].count"),
    ],
    ids=["shape", "dtype", "structure"],
)
@pytest.mark.parametrize("is_compiled", [True, False], ids=["compiled", "in Python"])
def test_a_state_of_another_form_is_refused(change: Any, problem: str, is_compiled: bool) -> None:
    trainer = with_step(change)._replace(compiled=is_compiled)
    with pytest.raises(StepStructureError, match=f"step returned a state of another form: {problem}.*astype"):
        compiled(trainer).chunk(first_state(), DATA, 0, KEY)


@pytest.mark.parametrize("function", ["setup", "teardown"])
def test_changes_keep_the_form_too(function: str) -> None:
    trainer = GRADIENT._replace(**{function: lambda state: state.replace(step=jnp.int8(0))})
    with pytest.raises(StepStructureError, match=f"{function} returned .*leaf .step: expected int32.., got int8"):
        compiled(trainer)


def test_metrics_must_be_scalars() -> None:
    trainer = GRADIENT._replace(step=lambda state, batch: (state, {"batch": batch}))
    with pytest.raises(StepStructureError, match=r"the metric \['batch'\] as float32\[4\], expected a scalar; reduce"):
        check_step(trainer, first_state(), DATA[:4])


def test_own_leaves_nothing_shared_or_weak() -> None:
    shared = jnp.ones(3)
    tree = {"a": shared, "b": shared, "weak": jnp.asarray(1.0), "number": 2.0, "numpy": np.ones(2), "key": KEY}
    copy = own(tree)
    assert len(buffer_pointers(copy)) == 6
    assert not buffer_pointers(copy) & buffer_pointers(tree)
    assert not any(copy[name].weak_type for name in ("a", "weak", "number", "numpy"))
    assert all(leaf.committed for leaf in jax.tree.leaves(copy))
    assert (copy["number"].dtype, copy["numpy"].dtype) == (jnp.float32, jnp.float32)
    assert jnp.all(jax.random.key_data(copy["key"]) == jax.random.key_data(KEY))


def test_a_run_of_several_chunks_copies_once_and_then_writes_in_place() -> None:
    state = first_state()
    programs = compile_trainer(GRADIENT, sample, state, DATA, steps=2, copies=True)
    published, values = state.params, np.asarray(state.params)
    begun = programs.setup(state)
    first, _ = programs.chunk(begun, DATA, 0, KEY)
    places = buffer_pointers(first.params)
    second, _ = programs.chunk(first, DATA, 2, KEY)
    assert begun.params.is_deleted()
    assert first.params.is_deleted()
    assert buffer_pointers(second.params) == places
    np.testing.assert_array_equal(published, values)


def test_copies_change_no_number() -> None:
    ends: list[Any] = []
    for copies in (False, True):
        state = first_state()
        programs = compile_trainer(GRADIENT, sample, state, DATA, steps=2, copies=copies)
        state = programs.setup(state)
        for position in (0, 2):
            state, _ = programs.chunk(state, DATA, position, KEY)
        ends.append(state)
    np.testing.assert_array_equal(ends[0].params, ends[1].params)
