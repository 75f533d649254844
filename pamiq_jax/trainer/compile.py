"""The one place that compiles a trainer: several steps in one program, with split donation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.errors import StepStructureError
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.donation import DonationPlan, explain_donation
from pamiq_jax.trainer.forward import jit_forwarding
from pamiq_jax.types import Metrics, Params, PyTree


class SampleFn(Protocol):
    """Where a chunk takes its batches from."""

    def __call__(self, buffer_state: PyTree, position: jax.Array, rng_key: jax.Array, /) -> PyTree:
        """Return a batch `[B, ...]`.

        Args:
            buffer_state: the buffer, only read.
            position: `int32[]`, which batch of the run this is.
            rng_key: `key[]`, the run's key for its data, consumed.
        """
        ...


class ChunkFn[S](Protocol):
    """A number of sample-and-step, run as one piece of work."""

    def __call__(self, state: S, buffer_state: PyTree, position: Any, rng_key: jax.Array, /) -> tuple[S, Metrics]:
        """Return the state after the chunk and the mean of each metric over it.

        Args:
            state: what the plan calls donated is deleted, the rest stays readable.
            buffer_state: the buffer, only read.
            position: `int32[]`, batches of the run that came before.
            rng_key: `key[]`, the run's key for its data; stays readable.
        """
        ...


class TrainerPrograms[S](NamedTuple):
    """A trainer made ready to run: its four functions, and what is donated.

    Attributes:
        setup: `(state) -> state`.
        chunk: `(state, buffer_state, position, rng_key) -> (state, metrics)`.
        publish: `(state) -> {model: params}`; a leaf that is handed out unchanged is not copied.
        teardown: `(state) -> state`.
        steps: steps in a chunk.
        plan: what of the state a chunk donates.
    """

    setup: Callable[[S], S]
    chunk: ChunkFn[S]
    publish: Callable[[S], Params]
    teardown: Callable[[S], S]
    steps: int
    plan: DonationPlan


def compile_trainer[S](
    trainer: Trainer[S, Any], sample: SampleFn, state: S, buffer_state: PyTree, *, steps: int
) -> TrainerPrograms[S]:
    """Return a trainer's functions compiled ahead of time for these shapes.

    A trainer with `compiled=False` keeps its own functions; only sampling is jitted then.

    Args:
        trainer: the trainer.
        sample: where batches come from; traced.
        state: a state with real arrays; it is not consumed.
        buffer_state: a state of the buffer, with real arrays.
        steps: steps in a chunk, at least 1.

    Raises:
        StepStructureError: `setup`, `step` or `teardown` returns a state of another form.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> trainer = pj.gradient_trainer(lambda w, batch, key: (jnp.mean((w - batch) ** 2), {}), optax.sgd(0.1))
        >>> state = trainer.init(jax.random.key(0), jnp.zeros(()))
        >>> data = jnp.arange(4.0)
        >>> def sample(data, position, rng_key):
        ...     return data
        >>> programs = compile_trainer(trainer, sample, state, data, steps=8)
        >>> state, metrics = programs.chunk(state, data, 0, jax.random.key(1))
        >>> print(state.step)
        8
    """
    plan = explain_donation(trainer, state)
    if not trainer.compiled:
        chunk = python_chunk(trainer, jax.jit(sample), steps)
        return TrainerPrograms(trainer.setup, chunk, trainer.publish, trainer.teardown, steps, plan)
    rng_key = jax.random.key(0)
    check_step(trainer, state, jax.eval_shape(sample, buffer_state, jnp.zeros((), jnp.int32), rng_key))
    return TrainerPrograms(
        setup=_compile_change("setup", trainer.setup, state),
        chunk=_compile_chunk(scan_chunk(trainer, sample, steps), plan, state, buffer_state, rng_key),
        publish=jit_forwarding(trainer.publish, state),
        teardown=_compile_change("teardown", trainer.teardown, state),
        steps=steps,
        plan=plan,
    )


def scan_chunk[S](trainer: Trainer[S, Any], sample: SampleFn, steps: int) -> ChunkFn[S]:
    """Return a pure function that does `steps` times sample and step with `lax.scan`.

    It compiles nothing itself; see `compile_trainer` for an example.

    Args:
        trainer: the trainer.
        sample: where batches come from.
        steps: how many, at least 1.
    """

    def chunk(state: S, buffer_state: PyTree, position: Any, rng_key: jax.Array, /) -> tuple[S, Metrics]:
        def body(state: S, offset: jax.Array) -> tuple[S, Metrics]:
            return trainer.step(state, sample(buffer_state, position + offset, rng_key))

        state, metrics = jax.lax.scan(body, state, jnp.arange(steps, dtype=jnp.int32))
        return state, jax.tree.map(_mean_over_steps, metrics)

    return chunk


def python_chunk[S](trainer: Trainer[S, Any], sample: SampleFn, steps: int) -> ChunkFn[S]:
    """Return a function that does `steps` times sample and step in a Python loop, untraced.

    Args:
        trainer: a trainer whose step cannot be traced.
        sample: where batches come from.
        steps: how many, at least 1.
    """

    def chunk(state: S, buffer_state: PyTree, position: Any, rng_key: jax.Array, /) -> tuple[S, Metrics]:
        history: list[Metrics] = []
        for offset in range(steps):
            batch = sample(buffer_state, jax.device_put(np.int32(position + offset)), rng_key)
            new_state, metrics = trainer.step(state, batch)
            _check_same_form("step", state, new_state)
            state = new_state
            history.append(metrics)
        return state, jax.tree.map(lambda *values: _mean_over_steps(jnp.stack(values)), *history)

    return chunk


def check_step(trainer: Trainer[Any, Any], state: Any, batch: PyTree) -> None:
    """Raise if a trainer's step would return a state of another form than it is given.

    Args:
        trainer: the trainer; its step is traced, not run.
        state: a state, arrays or specs.
        batch: a batch, arrays or specs.

    Raises:
        StepStructureError: naming the leaf, what was expected and what came.
    """
    new_state, metrics = jax.eval_shape(trainer.step, state, batch)
    _check_same_form("step", state, new_state)
    for name, metric in zip(trees.leaf_names(metrics), jax.tree.leaves(metrics), strict=True):
        if metric.shape != ():
            raise StepStructureError(
                f"step returned the metric {name} as {trees.describe_leaf(metric)}, expected a scalar; "
                "reduce it, for example with jnp.mean"
            )


def _check_same_form(function: str, state: Any, new_state: Any) -> None:
    if (problem := trees.difference(state, new_state)) is not None:
        raise StepStructureError(
            f"{function} returned a state of another form: {problem}; "
            "return every leaf with the shape and dtype it came with (`.astype(old.dtype)`)"
        )


def _compile_change[S](name: str, function: Callable[[S], S], state: S) -> Callable[[S], S]:
    _check_same_form(name, state, jax.eval_shape(function, state))
    return jit_forwarding(function, state)


def _compile_chunk[S](
    chunk: ChunkFn[S], plan: DonationPlan, state: S, buffer_state: PyTree, rng_key: jax.Array
) -> ChunkFn[S]:
    treedef = jax.tree.structure(state)

    def split_chunk(
        kept: list[jax.Array], donated: list[jax.Array], buffer_state: PyTree, position: jax.Array, rng_key: jax.Array
    ) -> tuple[list[jax.Array], list[jax.Array], Metrics]:
        state = cast(S, jax.tree.unflatten(treedef, _merge(plan, kept, donated)))
        state, metrics = chunk(state, buffer_state, position, rng_key)
        return *_split(plan, jax.tree.leaves(state)), metrics

    kept, donated = _split(plan, jax.tree.leaves(state))
    position = jnp.zeros((), jnp.int32)
    program = jax.jit(split_chunk, donate_argnums=1).lower(kept, donated, buffer_state, position, rng_key).compile()

    def run(state: S, buffer_state: PyTree, position: Any, rng_key: jax.Array, /) -> tuple[S, Metrics]:
        kept, donated = _split(plan, jax.tree.leaves(state))
        kept, donated, metrics = program(kept, donated, buffer_state, np.int32(position), rng_key)
        return cast(S, jax.tree.unflatten(treedef, _merge(plan, kept, donated))), metrics

    return run


def _split(plan: DonationPlan, leaves: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
    pairs = list(zip(plan.donated, leaves, strict=True))
    return [leaf for donated, leaf in pairs if not donated], [leaf for donated, leaf in pairs if donated]


def _merge(plan: DonationPlan, kept: list[jax.Array], donated: list[jax.Array]) -> list[jax.Array]:
    sources = {True: iter(donated), False: iter(kept)}
    return [next(sources[is_donated]) for is_donated in plan.donated]


def _mean_over_steps(values: jax.Array) -> jax.Array:
    return jnp.mean(values.astype(jnp.float32), axis=0)


def own(state: PyTree) -> PyTree:
    """Return a copy of a state whose arrays nobody else holds, committed, without weak types.

    A state that is built from somebody's arrays shares them; donated, they would vanish under
    their owner's hands, and an array that occurs twice can't be donated at all.

    Args:
        state: any pytree of arrays.

    Example:
        >>> w = jnp.ones(3)
        >>> copy = own({"w": w, "target": w})
        >>> len({leaf.unsafe_buffer_pointer() for leaf in (w, copy["w"], copy["target"])})
        3
    """

    def copy(leaf: Any) -> jax.Array:
        array = jnp.array(leaf, dtype=getattr(leaf, "dtype", None), copy=True)
        return jax.device_put(array, array.sharding)

    return jax.tree.map(copy, state)
