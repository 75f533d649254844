"""What the inference thread reads: all published parameters, in one immutable value."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pamiq_jax.types import Params


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

    @staticmethod
    def of(params: Mapping[str, Params], *, step: int = 0, published_at: float = 0.0) -> Snapshot:
        """Return version 0 with these parameters."""
        return Snapshot(0, step, MappingProxyType(dict(params)), published_at)

    def succeeded_by(self, params: Mapping[str, Params], *, step: int, published_at: float) -> Snapshot:
        """Return the next version: these models replaced, all the others as they were."""
        merged = MappingProxyType({**self.params, **params})
        return Snapshot(self.version + 1, step, merged, published_at)
