"""Replay by priority: what surprised the trainer most comes up most."""

from __future__ import annotations

import math
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pamiq_jax.arguments import is_number
from pamiq_jax.data.buffer import Buffer, Placement
from pamiq_jax.data.prioritized_batch import PrioritizedBatch
from pamiq_jax.data.ring import RingState, ring_buffer
from pamiq_jax.data.rows import check_batch_size, check_storage, last_of_each, read_rows
from pamiq_jax.data.sum_tree import find_slots, set_masses, zero_sums
from pamiq_jax.display import Shown
from pamiq_jax.errors import InvalidValueError


class PrioritizedState[X](Shown, flax.struct.PyTreeNode):
    """A ring of the newest records with a mass for each, `priority ** alpha`.

    Attributes:
        ring: the records.
        sums: float32 `[2 * leaves]`, the tree of sums over the masses.
        largest: float32 `[]`, the largest mass so far, which a new record gets.
    """

    ring: RingState[X]
    sums: jax.Array
    largest: jax.Array


def prioritized_buffer[X](
    capacity: int,
    *,
    alpha: float = 0.6,
    beta: float = 0.4,
    placement: Placement = "device",
    example: X | None = None,
) -> Buffer[PrioritizedState[X], X, PrioritizedBatch[X]]:
    """Return a buffer of the newest records that samples them in proportion to `priority ** alpha`.

    Schaul et al., "Prioritized Experience Replay", ICLR 2016, arXiv:1511.05952, the proportional variant: new
    records get the largest priority so far, a batch is stratified, and its importance weights are
    `(size * probability) ** -beta` over their maximum. A step multiplies its losses by the weights and gives new
    priorities, usually `abs(error) + epsilon`.

    In a system a step gets `PrioritizedBatch(records=<data>, indices, weights)`, and returns new priorities, float32
    `[B]`, as its metric "priorities": with `gradient_trainer`, `return loss, {"priorities": jnp.abs(error)}`. With
    several sources that is a dict by source. They are stored after each chunk, oldest step first, so that they count
    from the next chunk on; `steps_per_chunk=1` makes that every step.

    By hand: after the program that sampled, and before records are added, `buffer.update(state, indices,
    priorities)` stores them. Indices are slots: a record that came in between would get the priority of the one it
    replaced. The last of several priorities for a record counts. Infinity counts as the largest so far, a negative
    one as 0, and NaN changes nothing. What is stored, `priority ** alpha`, is at most the largest float32 over twice
    the capacity, so that sums are finite: priorities beyond that are equal. A record of priority 0 is not sampled, and
    when all are, `can_sample` is false: trainers wait for new records. To anneal beta, give 1 here and raise the
    weights to the power of the schedule within the step.

    Args:
        capacity: the number of records, from 1 to `2**29`.
        alpha: how much priorities count, from 0, which is uniform, on.
        beta: how much of the bias the weights take back, from 0 to 1.
        placement: "device", or "host": the caller keeps the state on a CPU device and transfers batches. In a
            system, those of a trainer that returns priorities are gathered when each chunk begins, not ahead of it.
        example: one record, for a system that cannot know it from its agent and environment.

    Raises:
        InvalidValueError: an argument is outside its range.

    Example:
        >>> buffer = prioritized_buffer(capacity=4, alpha=1.0, beta=1.0)
        >>> state = buffer.add(buffer.init(0.0), jnp.array([0.0, 10.0, 20.0]), 3)
        >>> state = buffer.update(state, jnp.arange(3), jnp.array([1.0, 0.0, 2.0]))
        >>> batch = buffer.sample(state, 3, 0, jax.random.key(0))
        >>> batch.records.tolist(), batch.weights.tolist()
        ([0.0, 20.0, 20.0], [1.0, 0.5, 0.5])
    """
    check_storage("prioritized_buffer", capacity, placement)
    if capacity > 2**29:  # the tree has up to four times as many nodes as records, counted in int32
        raise InvalidValueError("prioritized_buffer(capacity)", capacity, f"1 to {2**29}")
    if not is_number(alpha) or not 0 <= alpha < math.inf:
        raise InvalidValueError("prioritized_buffer(alpha)", alpha, "a finite number from 0 on")
    if not is_number(beta) or not 0 <= beta <= 1:
        raise InvalidValueError("prioritized_buffer(beta)", beta, "0 to 1")
    ring = ring_buffer(capacity, placement=placement, example=example)
    return Buffer(
        keeps_all=True,
        kind="prioritized_buffer",
        init=partial(_init, ring),
        add=partial(_add, ring),
        sample=partial(_sample, beta),
        size=lambda state: state.ring.size,
        required=ring.required,
        capacity=capacity,
        stable_in_run=False,
        placement=placement,
        example=example,
        can_sample=lambda state: state.sums[1] > 0,
        update=partial(_update, alpha, float(jnp.finfo(jnp.float32).max) / (2 * capacity)),
    )


def _init[X](ring: Buffer[RingState[X], X, X], example: X) -> PrioritizedState[X]:
    return PrioritizedState(ring.init(example), zero_sums(ring.capacity), jnp.ones((), jnp.float32))


def _add[X](
    ring: Buffer[RingState[X], X, X], state: PrioritizedState[X], records: X, count: ArrayLike
) -> PrioritizedState[X]:
    added = ring.add(state.ring, records, count)
    offsets = jnp.arange(jax.tree.leaves(records)[0].shape[0], dtype=jnp.int32)
    is_valid = offsets < jnp.asarray(count)
    slots = jnp.where(is_valid, (state.ring.head + offsets) % ring.capacity, state.sums.size)
    masses = jnp.broadcast_to(state.largest, slots.shape)
    return state.replace(ring=added, sums=set_masses(state.sums, slots, masses))


def _sample[X](
    beta: float, state: PrioritizedState[X], batch_size: int, position: ArrayLike, rng_key: jax.Array
) -> PrioritizedBatch[X]:
    check_batch_size(batch_size)
    within = jax.random.uniform(jax.random.fold_in(rng_key, position), (batch_size,))
    strata = jnp.arange(batch_size, dtype=jnp.float32)
    slots = find_slots(state.sums, (strata + within) * (state.sums[1] / batch_size))
    masses = read_rows(state.sums, state.sums.size // 2 + slots)
    # Size and total cancel out. Without any mass, where `can_sample` is false, the batch weighs nothing.
    # `(masses / least) ** -beta`; a power takes longer than the logarithms do.
    weights = jnp.exp(beta * (jnp.log(jnp.min(masses)) - jnp.log(masses)))
    weights = jnp.where(masses > 0, weights, 0.0)
    return PrioritizedBatch(read_rows(state.ring.records, slots), slots, weights)


def _update[X](
    alpha: float, most: float, state: PrioritizedState[X], indices: jax.Array, priorities: jax.Array
) -> PrioritizedState[X]:
    if indices.shape != priorities.shape:
        remedy = "give one priority for each index of the batch"
        raise InvalidValueError("update(priorities)", priorities.shape, f"the shape {indices.shape} of indices", remedy)
    slots, priorities = indices.reshape(-1), priorities.reshape(-1).astype(jnp.float32)
    # A sum over all records of what is stored stays finite.
    masses = jnp.minimum(jnp.maximum(priorities, 0.0) ** alpha, most)
    masses = jnp.where(jnp.isfinite(priorities), masses, state.largest)
    outside = state.sums.size
    is_stored = (slots >= 0) & (slots < state.ring.size) & ~jnp.isnan(priorities)
    slots = last_of_each(jnp.where(is_stored, slots, outside), outside)
    largest = jnp.maximum(state.largest, jnp.max(jnp.where(is_stored, masses, 0.0), initial=0.0))
    return state.replace(sums=set_masses(state.sums, slots, masses), largest=largest)
