"""A binary tree of sums, in one array, that finds the slot at a point of the total in `log2` steps.

Node 1 is the root, node `n` has the children `2n` and `2n + 1`, and the second half of the array are the
leaves. Appendix B.2.1 of Schaul et al., "Prioritized Experience Replay", ICLR 2016, arXiv:1511.05952.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def zero_sums(capacity: int) -> jax.Array:
    """Return a tree float32 `[2 * leaves]` of zeros, `leaves` being the next power of two.

    Example:
        >>> zero_sums(5).shape
        (16,)
    """
    return jnp.zeros(2 << (capacity - 1).bit_length(), jnp.float32)


def set_masses(sums: jax.Array, slots: jax.Array, masses: jax.Array) -> jax.Array:
    """Return the tree with other masses at some leaves. Sums are formed anew, so no rounding error piles up.

    Args:
        sums: float32 `[2 * leaves]`.
        slots: int32 `[N]`, not negative; those below `leaves` must differ, the others change nothing.
        masses: float32 `[N]`, finite and not negative.

    Example:
        >>> sums = set_masses(zero_sums(3), jnp.array([0, 2]), jnp.array([1.0, 3.0]))
        >>> sums.tolist()
        [0.0, 4.0, 1.0, 3.0, 1.0, 0.0, 3.0, 0.0]
    """
    leaves = sums.size // 2
    sums = sums.at[leaves + slots].set(masses, mode="drop")
    nodes = leaves + jnp.minimum(slots, leaves - 1)  # the parents of an unchanged leaf may be summed again
    for _ in range(leaves.bit_length() - 1):
        nodes = nodes // 2
        sums = sums.at[nodes].set(sums[2 * nodes] + sums[2 * nodes + 1])
    return sums


def find_slots(sums: jax.Array, points: jax.Array) -> jax.Array:
    """Return the slots, int32 `[N]`, whose masses, laid side by side, cover the points.

    A slot without mass is never found unless there is no mass at all.

    Args:
        sums: float32 `[2 * leaves]`.
        points: float32 `[N]`, from 0 to the total `sums[1]`.

    Example:
        >>> sums = set_masses(zero_sums(3), jnp.array([0, 2]), jnp.array([1.0, 3.0]))
        >>> find_slots(sums, jnp.array([0.0, 0.9, 1.0, 4.0])).tolist()
        [0, 0, 2, 2]
    """
    # Elsewhere a branch may wait for the host.
    nodes = jax.lax.platform_dependent(sums, points, cpu=_nodes_at, default=_nodes_with_mass)
    return (nodes - sums.size // 2).astype(jnp.int32)


def _nodes_at(sums: jax.Array, points: jax.Array) -> jax.Array:
    """Return the leaves at the points, of each node looking at one child, unless that has led past the end."""

    def descend(_: int, place: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        nodes, points = place
        left = sums.at[2 * nodes].get(mode="promise_in_bounds")
        goes_right = points >= left
        return 2 * nodes + goes_right.astype(jnp.uint32), jnp.where(goes_right, points - left, points)

    nodes = _descended(descend, sums, points)
    is_past_the_end = jnp.any(sums.at[nodes].get(mode="promise_in_bounds") <= 0)  # by rounding, so nearly never
    return jax.lax.cond(is_past_the_end, lambda: _nodes_with_mass(sums, points), lambda: nodes)


def _nodes_with_mass(sums: jax.Array, points: jax.Array) -> jax.Array:
    """Return the leaves at the points, and never one without mass, for which it looks at both children of each node."""
    children = sums.reshape(-1, 2)

    def descend(_: int, place: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        nodes, points = place
        both = children.at[nodes].get(mode="promise_in_bounds")
        left, right = both[..., 0], both[..., 1]
        goes_right = (points >= left) & (right > 0)
        return 2 * nodes + goes_right.astype(jnp.uint32), jnp.where(goes_right, points - left, points)

    return _descended(descend, sums, points)


def _descended(descend: Callable[..., tuple[jax.Array, jax.Array]], sums: jax.Array, points: jax.Array) -> jax.Array:
    """Return the leaves that a step from node to child leads to, from the root.

    As a loop: written out, XLA's CPU backend computes each level's gathers anew for the next, 25 times slower in all.
    """
    levels = (sums.size // 2).bit_length() - 1
    return jax.lax.fori_loop(0, levels, descend, (jnp.ones(points.shape, jnp.uint32), points))[0]
