"""Say which model a loss asks for that it was not given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import jax

from pamiq_jax.errors import UnknownNameError


class _Given(dict[str, Any]):
    """Parameters by model name, which say what to do about one that is not among them."""

    def __missing__(self, name: object) -> Any:
        remedy = f"name a model that is only read: gradient_trainer(reads=({name!r},))"
        raise UnknownNameError("model that the loss is given", name, self, "loss_fn", remedy)


def naming_missing(loss_fn: Callable[[Any, Any, jax.Array], Any]) -> Callable[[Any, Any, jax.Array], Any]:
    """Return a loss whose KeyError for a model that it was not given says so.

    A KeyError is raised for other things too, so the loss is called once more after one, with parameters that tell.

    Args:
        loss_fn: `(params, batch, rng_key) -> anything`.

    Example:
        >>> loss_fn = naming_missing(lambda params, batch, rng_key: params["world"] * params["policy"])
        >>> loss_fn({"policy": 1}, None, jax.random.key(0))
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.UnknownNameError: loss_fn: no model that the loss is given is named 'world'; known: ...
    """

    def named(params: Any, batch: Any, rng_key: jax.Array, /) -> Any:
        try:
            return loss_fn(params, batch, rng_key)
        except KeyError as error:
            if isinstance(params, Mapping) and not isinstance(error, UnknownNameError):
                _ask_again(loss_fn, _Given(cast(Mapping[str, Any], params)), batch, rng_key)
            raise

    return named


def _ask_again(loss_fn: Callable[[Any, Any, jax.Array], Any], params: _Given, batch: Any, rng_key: jax.Array) -> None:
    try:
        loss_fn(params, batch, rng_key)
    except UnknownNameError:
        raise
    except Exception:  # the parameters are no plain dict this time; what was raised first is what counts
        return
