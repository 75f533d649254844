"""What the inference thread reads: all published parameters, in one immutable value."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, override

import jax

from pamiq_jax.facts import facts_html, facts_text
from pamiq_jax.types import Params


class PublishedParams(Mapping[str, Params]):
    """Parameters by model name, read only all the way down.

    Arrays cannot be written to, but dicts can. So dicts are made anew for whoever asks for a model: what a
    reader, or the publisher, does to its own changes nobody else's. For JAX they are a pytree, which a jitted
    function gets as a dict.

    Args:
        params: parameters by model name.

    Example:
        >>> published = PublishedParams({"policy": {"bias": 1.0}})
        >>> published["policy"]["bias"] = 2.0
        >>> published["policy"]
        {'bias': 1.0}
    """

    def __init__(self, params: Mapping[str, Params]) -> None:
        is_known = isinstance(params, PublishedParams)
        self._models: dict[str, tuple[list[Any], Any]] = (
            dict(params._models) if is_known else {name: jax.tree.flatten(model) for name, model in params.items()}
        )

    def flat(self, name: str) -> tuple[list[Any], Any]:
        """Return a model's leaves, not to be changed, and its tree.

        Args:
            name: of a model that is there.
        """
        return self._models[name]

    @functools.cached_property
    def leaves(self) -> tuple[Any, ...]:
        """All arrays, as `jax.tree.leaves` lists them."""
        return tuple(leaf for name in sorted(self._models) for leaf in self._models[name][0])

    def replaced(self, params: Mapping[str, Params]) -> PublishedParams:
        """Return these with some models replaced."""
        result = PublishedParams(self)
        result._models.update(PublishedParams(params)._models)
        return result

    @override
    def __getitem__(self, name: str) -> Params:
        leaves, treedef = self._models[name]
        return treedef.unflatten(leaves)

    @override
    def __contains__(self, name: object) -> bool:
        return name in self._models

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    @override
    def __len__(self) -> int:
        return len(self._models)

    @override
    def __repr__(self) -> str:
        return repr(dict(self))


def _flatten(published: PublishedParams) -> tuple[list[tuple[Any, Params]], tuple[str, ...]]:
    names = tuple(sorted(published))
    return [(jax.tree_util.DictKey(name), published[name]) for name in names], names


def _as_dict(names: tuple[str, ...], models: Iterable[Params]) -> Any:
    return dict(zip(names, models, strict=True))


jax.tree_util.register_pytree_with_keys(PublishedParams, _flatten, _as_dict)


class Snapshot(NamedTuple):
    """The published parameters of all models, as of one moment.

    Attributes:
        version: 0 for the initial parameters, then one more with each publication.
        step: the step of the trainer that published last.
        params: parameters by model name; read only.
        published_at: when it was published, in seconds on the system's clock.

    Example:
        >>> snapshot = Snapshot.of({"policy": [1, 2]})
        >>> snapshot.version, snapshot.params["policy"]
        (0, [1, 2])
    """

    version: int
    step: int
    params: Mapping[str, Params]
    published_at: float
    _repr_html_, __repr__ = facts_html, facts_text

    @staticmethod
    def of(params: Mapping[str, Params], *, step: int = 0, published_at: float = 0.0) -> Snapshot:
        """Return version 0 with these parameters."""
        return Snapshot(0, step, PublishedParams(params), published_at)

    def succeeded_by(self, params: Mapping[str, Params], *, step: int, published_at: float) -> Snapshot:
        """Return the next version: these models replaced, all the others as they were."""
        return Snapshot(self.version + 1, step, PublishedParams(self.params).replaced(params), published_at)
