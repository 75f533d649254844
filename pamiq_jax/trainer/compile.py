"""The one place that compiles a trainer: several steps in one program, with split donation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.errors import noted
from pamiq_jax.trainer.base import ChangeFn, PublishFn, Trainer
from pamiq_jax.trainer.donation import COPIED, READ, DonationPlan, explain_donation
from pamiq_jax.trainer.drawing import NO_RUN, SampleFn, drawing_key, place_of, sample_at
from pamiq_jax.trainer.forward import calls_python, forwarded_leaves, jit_forwarding
from pamiq_jax.trainer.priorities import reduce_metrics, split_drawn, with_indices
from pamiq_jax.trainer.step_checks import check_same_form, check_step
from pamiq_jax.trainer.step_donation import keeping, warm_up
from pamiq_jax.trainer.step_modules import noted_captured_module
from pamiq_jax.trainer.untraced import python_chunk
from pamiq_jax.types import Metrics, PyTree

type ChunkFn[S] = Callable[[S, PyTree, Any, jax.Array], tuple[S, Metrics]]
"""`(state, buffer_state, position, rng_key) -> (state, metrics)`: some steps, and their mean metrics.

Of the state, what the plan calls donated is deleted. The buffer and the data key are only
read; `position` is the number of batches of the run that came before. "priorities" are of every step.
"""

type RunChunkFn[S] = Callable[..., tuple[S, Metrics]]
"""A compiled `ChunkFn`. It also takes the number of the run, by default `NO_RUN`, and folds it into the key."""


class TrainerPrograms[S](NamedTuple):
    """A trainer made ready to run: its functions as `Trainer` has them, but `chunk` for many a `step`.

    Attributes:
        steps: steps in a chunk.
        plan: what of the state a chunk donates.
        gather: `(buffer_state, position, rng_key, run)` -> a chunk's batches, which `chunk` is given; None: it draws
            them itself.
        is_traced: whether a chunk is one program that calls no Python, so that nothing of the user's can fail in it.
    """

    setup: ChangeFn[S]
    chunk: RunChunkFn[S]
    publish: PublishFn[S]
    teardown: ChangeFn[S]
    steps: int
    plan: DonationPlan
    gather: Callable[..., PyTree] | None = None
    is_traced: bool = False


def compile_trainer[S](
    trainer: Trainer[S, Any],
    sample: SampleFn,
    state: S,
    buffer_state: PyTree,
    *,
    steps: int,
    donates: bool = True,
    copies: bool = False,
) -> TrainerPrograms[S]:
    """Return a trainer's functions compiled ahead of time for these shapes.

    A trainer with `compiled=False` keeps its own functions; only sampling is compiled then, and with `warm_up` they
    are called once, on copies and a batch of the buffer as it is.

    Args:
        trainer: the trainer.
        sample: where batches come from; traced.
        state: a state with real arrays; it is not consumed.
        buffer_state: a state of the buffer, with real arrays.
        steps: steps in a chunk, at least 1.
        donates: whether a chunk writes over what nobody else reads; False keeps the state it is given.
        copies: whether `setup` copies what a snapshot may hold, so that a run's chunks write over that too: for runs of
            several chunks.

    Raises:
        StepStructureError: `setup`, `step` or `teardown` returns a state of another form.

    Example:
        >>> import optax, pamiq_jax as pj
        >>> trainer = pj.gradient_trainer(lambda w, batch, key: (jnp.mean((w - batch) ** 2), {}), optax.sgd(0.1))
        >>> state = trainer.init(jax.random.key(0), jnp.zeros(()))
        >>> data = jnp.arange(4.0)
        >>> programs = compile_trainer(trainer, lambda data, position, rng_key: data, state, data, steps=8)
        >>> state, metrics = programs.chunk(state, data, 0, jax.random.key(1))
        >>> print(state.step)
        8
    """
    plan = explain_donation(trainer, state, donates=donates, copies=copies)
    rng_key = jax.random.key(0)
    if not trainer.compiled:
        draw = jax.jit(sample_at(sample)).lower(buffer_state, place_of(), rng_key).compile()
        if not donates:
            trainer = keeping(trainer)
        if trainer.warm_up:
            warm_up(trainer, state, split_drawn(draw(buffer_state, place_of(), rng_key))[0])
        chunk = python_chunk(trainer, draw, steps)
        return TrainerPrograms(trainer.setup, chunk, trainer.publish, trainer.teardown, steps, plan)
    batch = split_drawn(jax.eval_shape(sample, buffer_state, jnp.zeros((), jnp.int32), rng_key))
    with noted("in `step`"), noted_captured_module():
        check_step(trainer, state, *batch)
    chunk, is_traced = _compile_chunk(scan_chunk(trainer, sample, steps), plan, state, buffer_state, rng_key, steps)
    return TrainerPrograms(
        setup=_with_copies(_compile_change("setup", trainer.setup, state), plan, state),
        chunk=chunk,
        publish=jit_forwarding(trainer.publish, state),
        teardown=_compile_change("teardown", trainer.teardown, state),
        steps=steps,
        plan=plan,
        is_traced=is_traced,
    )


def scan_chunk[S](trainer: Trainer[S, Any], sample: SampleFn, steps: int) -> ChunkFn[S]:
    """Return a pure function, not compiled yet, that does `steps` times sample and step by `lax.scan`."""

    def chunk(state: S, buffer_state: PyTree, position: Any, rng_key: jax.Array, /) -> tuple[S, Metrics]:
        def body(state: S, offset: jax.Array) -> tuple[S, Metrics]:
            batch, indices = split_drawn(sample(buffer_state, position + offset, rng_key))
            state, metrics = trainer.step(state, batch)
            return state, with_indices(metrics, indices)

        state, metrics = jax.lax.scan(body, state, jnp.arange(steps, dtype=jnp.int32))
        return state, reduce_metrics(metrics, lambda values: jnp.mean(values.astype(jnp.float32), axis=0))

    return chunk


def _compile_change[S](name: str, function: ChangeFn[S], state: S) -> ChangeFn[S]:
    with noted(f"in `{name}`"):
        check_same_form(name, state, jax.eval_shape(function, state))
    return jit_forwarding(function, state, in_place=True)


def _with_copies[S](setup: ChangeFn[S], plan: DonationPlan, state: S) -> ChangeFn[S]:
    """Return a setup after which the leaves that the plan says so of are nobody else's."""
    places = [place for place, row in enumerate(plan.rows) if row.reason == COPIED]
    if not places:
        return setup
    leaves, treedef = jax.tree.flatten(state)
    copy = jax.jit(lambda leaves: [jnp.copy(leaf) for leaf in leaves])
    program = copy.lower([leaves[place] for place in places]).compile()

    def set_up(state: S) -> S:
        leaves = jax.tree.leaves(setup(state))
        for place, leaf in zip(places, program([leaves[place] for place in places]), strict=True):
            leaves[place] = leaf
        return cast(S, treedef.unflatten(leaves))

    return set_up


def _compile_chunk[S](
    chunk: ChunkFn[S], plan: DonationPlan, state: S, buffer_state: PyTree, rng_key: jax.Array, steps: int
) -> tuple[RunChunkFn[S], bool]:
    """Return the compiled chunk, and whether it calls no Python."""
    treedef = jax.tree.structure(state)
    passing = _passing(chunk, plan, state, buffer_state, rng_key)
    places = range(len(plan.rows))
    kept_places = [place for place in places if not plan.rows[place].donated]
    donated_places = [place for place in places if plan.rows[place].donated]
    returned = [place for place in kept_places if not passing[place]]

    def split(state: S) -> tuple[list[Any], list[Any], list[Any]]:
        leaves = jax.tree.leaves(state)
        return leaves, [leaves[place] for place in kept_places], [leaves[place] for place in donated_places]

    def split_chunk(kept: Any, donated: Any, buffer_state: PyTree, where: jax.Array, rng_key: jax.Array) -> Any:
        by_place = dict(zip([*kept_places, *donated_places], [*kept, *donated], strict=True))
        state, (position, run) = treedef.unflatten(by_place[place] for place in places), where
        state, metrics = chunk(state, buffer_state, position, drawing_key(rng_key, run))
        leaves, _, donated = split(state)
        following = jnp.stack([position + steps, run]), jnp.stack([jnp.zeros_like(position), run + 1])
        return [leaves[place] for place in returned], donated, metrics, following

    # Numbers take as long to get to the device as all the rest of a call; those of the next chunk are there already.
    following: dict[tuple[int, int], jax.Array] = {}
    jitted = jax.jit(split_chunk, donate_argnums=1)
    traced = jitted.trace(*split(state)[1:], buffer_state, place_of(), rng_key)
    program = traced.lower().compile()

    def call(
        state: S, buffer_state: PyTree, position: Any, rng_key: jax.Array, run: int = NO_RUN, /
    ) -> tuple[S, Metrics]:
        leaves, kept, donated = split(state)
        number = int(position)
        where = following.get((number, run))
        where = place_of(number, run) if where is None else where
        kept, donated, metrics, (same_run, next_run) = program(kept, donated, buffer_state, where, rng_key)
        following.clear()
        following[number + steps, run], following[0, run + 1] = same_run, next_run
        for place, leaf in zip(returned, kept, strict=True):
            leaves[place] = leaf
        for place, leaf in zip(donated_places, donated, strict=True):
            leaves[place] = leaf
        return cast(S, treedef.unflatten(leaves)), metrics

    return call, not calls_python(traced.jaxpr)


def _passing[S](
    chunk: ChunkFn[S], plan: DonationPlan, state: S, buffer_state: PyTree, rng_key: jax.Array
) -> list[bool]:
    """Return which leaves a chunk hands through: a program would copy them at every call."""
    if all(row.reason != READ for row in plan.rows):  # parameters change, and another trace takes time
        return [False] * len(plan.rows)
    forwarded = forwarded_leaves(lambda state: chunk(state, buffer_state, np.int32(0), rng_key)[0], state)
    return [row.reason == READ and forwarded.get(index) == index for index, row in enumerate(plan.rows)]


def own(state: PyTree) -> PyTree:
    """Return a copy of a state whose arrays nobody else holds, committed, without weak types.

    A state built from somebody's arrays shares them: donated, they would vanish under their owner's
    hands, and an array that occurs twice can't be donated at all.

    Example:
        >>> w = jnp.ones(3)
        >>> copy = own({"w": w, "target": w})
        >>> len({leaf.unsafe_buffer_pointer() for leaf in (w, copy["w"], copy["target"])})
        3
    """

    def copy(leaf: Any) -> jax.Array:
        array = jnp.array(leaf, dtype=jnp.result_type(leaf), copy=True)
        return jax.device_put(array, array.sharding)

    return jax.tree.map(copy, state)
