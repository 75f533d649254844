"""An iterator as what a system acts in: it is watched, and what it gives is recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import jax

from pamiq_jax.errors import InvalidValueError, noted
from pamiq_jax.runtime import Agent, EnvironmentSpec, Interaction
from pamiq_jax.trees import spec_of
from pamiq_jax.types import PyTree

type MakeFn = Callable[[int], Iterator[PyTree]]
"""`(epoch) -> iterator`: the items of one pass through the data, the same each time it is called with that number."""


@runtime_checkable
class ResumableIterator(Protocol):
    """An iterator that can tell where it is, as the loaders of several libraries can.

    Example:
        >>> class Loader:
        ...     position = 0
        ...     def __next__(self): self.position += 1; return self.position
        ...     def state_dict(self): return {"position": self.position}
        ...     def load_state_dict(self, state): self.position = state["position"]
        >>> isinstance(Loader(), ResumableIterator)
        True
    """

    def state_dict(self) -> PyTree:
        """Return what decides which items follow, as dicts, lists and tuples of arrays, numbers, str and None."""
        ...

    def load_state_dict(self, state: PyTree, /) -> None:
        """Go on from what `state_dict` returned."""
        ...


class IteratorEnvironment:
    """An iterator that shows one item after the other; its action is `()`, and changes nothing.

    It saves its place. A resumed run goes on with the item that would have come next: an iterator with `state_dict` and
    `load_state_dict` is told so, of any other as many items are skipped as were seen in that epoch.

    Args:
        make: `(epoch) -> iterator`; called with 0, and with the next number whenever an iterator has ended.
        repeat: whether to begin another epoch at the end; False raises then, which in a live system ends the
            interaction as any failure of an environment does. Bring data that ends by `run.collect` there.

    Raises:
        InvalidValueError: `make` returns no iterator, or one without an item; in a run, that the last item has come.

    Example:
        >>> environment = IteratorEnvironment(lambda epoch: iter([10 * epoch, 10 * epoch + 1]))
        >>> environment.reset(seed=0)
        >>> [(int(environment.observe()), environment.affect(()))[0] for _ in range(5)]
        [0, 1, 10, 11, 20]
    """

    def __init__(self, make: MakeFn, *, repeat: bool = True) -> None:
        given: Any = make  # users may not type
        if not callable(given):
            remedy = "write lambda epoch: iter(items): an iterator alone can be gone through only once"
            raise InvalidValueError("IteratorEnvironment(make)", type(given).__name__, "a function (epoch)", remedy)
        self._make, self._repeat = make, repeat
        self._begin(0)
        self._spec = EnvironmentSpec(spec_of(self._item), (), {})

    @property
    def spec(self) -> EnvironmentSpec:
        """The form of the items, as the first one has it."""
        return self._spec

    def reset(self, seed: int) -> None:
        """Begin with epoch 0.

        Args:
            seed: not used: `make` is what decides the order.
        """
        self._begin(0)

    def observe(self) -> PyTree:
        """Return the item whose turn it is."""
        if self._has_ended:
            expected = f"True for more than its {self._position} items"
            remedy = "in a live system, bring data that ends by `run.collect(buffer, item)`, without an interaction"
            raise InvalidValueError("IteratorEnvironment(repeat)", False, expected, remedy)
        return self._item

    def affect(self, action: PyTree) -> Mapping[str, Any]:
        """Go on to the next item.

        Args:
            action: `()`.
        """
        self._before = self._state_of_iterator()
        self._position += 1
        try:
            self._item = next(self._iterator)
        except StopIteration:
            if self._repeat:
                self._begin(self._epoch + 1)
            else:
                self._has_ended = True
        return {}

    def save_state(self) -> PyTree:
        """Return epoch and place, and what the iterator says of itself, from before the item whose turn it is."""
        return {"epoch": self._epoch, "position": self._position, "iterator": self._before}

    def load_state(self, state: PyTree) -> None:
        """Go on from a state. Called after `reset`.

        Args:
            state: what `save_state` returned.
        """
        self._begin(int(state["epoch"]))
        position = int(state["position"])
        if position and isinstance(self._iterator, ResumableIterator) and state["iterator"] is not None:
            self._iterator.load_state_dict(state["iterator"])
            self._position = position - 1
        while self._position < position:
            self.affect(())

    def close(self) -> None:
        """Close the iterator, if it can be."""
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    def _begin(self, epoch: int) -> None:
        with noted("in what IteratorEnvironment was given, which is called with the number of the epoch"):
            iterator: Any = self._make(epoch)
        if not hasattr(iterator, "__next__"):
            remedy = "return iter(...) of it"
            raise InvalidValueError("IteratorEnvironment(make)", type(iterator).__name__, "an iterator", remedy)
        self._iterator: Iterator[PyTree] = iterator
        self._epoch, self._position, self._has_ended = epoch, 0, False
        self._before = self._state_of_iterator()
        try:
            self._item = next(iterator)
        except StopIteration:
            raise InvalidValueError("IteratorEnvironment(make)", "no item", f"at least one in epoch {epoch}") from None

    def _state_of_iterator(self) -> PyTree:
        iterator: object = self._iterator
        return iterator.state_dict() if isinstance(iterator, ResumableIterator) else None


def iterator_source(make: MakeFn, into: str | tuple[str, ...], *, repeat: bool = True) -> Interaction:
    """Return an interaction that brings the items of an iterator into buffers, one at each tick.

    A data set that does not fit into memory, the shards of another library's loader, a log that is read. In
    `run_lockstep` it is deterministic and loses nothing; in `launch` it goes ahead of training, and what does not fit
    into a buffer's `Queue` is dropped and counted. A `rollout_buffer(length, bootstrap=0)` learns from each item once.

    Args:
        make: `(epoch) -> iterator`, see `IteratorEnvironment`.
        into: the name of the buffer that stores the items, or several.
        repeat: as in `IteratorEnvironment`.

    Raises:
        InvalidValueError: as `IteratorEnvironment`.

    Example:
        Each item is learned from once, in batches of four:

        >>> import numpy as np, optax, jax.numpy as jnp, pamiq_jax as pj
        >>> def loss_fn(params, batch, rng_key):
        ...     return jnp.mean((params["mean"] - batch) ** 2), {}
        >>> system = pj.System(
        ...     models={"mean": pj.Model(jnp.zeros(()))},
        ...     buffers={"items": pj.rollout_buffer(4, bootstrap=0)},
        ...     trainers={"fit": pj.Schedule(pj.gradient_trainer(loss_fn, optax.sgd(0.5)), data="items", batch_size=4)},
        ...     interaction=iterator_source(lambda epoch: (np.float32(value) for value in range(8)), "items"),
        ... )
        >>> print(pj.run_lockstep(system, 8).snapshot.params["mean"])
        5.5
    """
    buffers = (into,) if isinstance(into, str) else into

    def watch(params: Any, carry: Any, observation: PyTree, rng_key: jax.Array) -> tuple[Any, PyTree, dict[str, Any]]:
        return carry, (), {}

    collect = dict.fromkeys(buffers, _item)
    return Interaction(Agent(watch), IteratorEnvironment(make, repeat=repeat), collect=collect)


def _item(record: dict[str, Any]) -> PyTree:
    return record["observation"]
