"""What combinators share: a state around another trainer's state, and another use of its gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import flax.struct

from pamiq_jax.arguments import checked_kind
from pamiq_jax.display import Shown
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.trainer.base import Trainer
from pamiq_jax.trainer.optimization import Optimization
from pamiq_jax.types import Params


class WrappedState[S](Shown, flax.struct.PyTreeNode):
    """The state of a trainer that does something around another one. It can be read like that one's.

    Subclass it to add fields.

    Attributes:
        inner: the other trainer's state.
    """

    inner: S

    @property
    def params(self) -> Any:
        """The parameters, in the inner state."""
        return _of(self.inner).params

    @property
    def reads(self) -> dict[str, Params]:
        """The models that are only read, in the inner state."""
        return getattr(self.inner, "reads", {})

    @property
    def step(self) -> Any:
        """The number of steps, in the inner state."""
        return _of(self.inner).step


def _of(state: Any) -> Any:
    return state


def lift(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a wrapped state that changes the inner one.

    Example:
        >>> lift(lambda state, more: state + more)(WrappedState(1), 2)
        WrappedState(inner=3)
    """

    def lifted(state: Any, *rest: Any) -> Any:
        return state.replace(inner=function(state.inner, *rest))

    return lifted


type Combinator = Callable[[Trainer[Any, Any]], Trainer[Any, Any]]
"""`(inner trainer) -> trainer` around it."""


def lift_trainer(trainer: Trainer[Any, Any], again: Combinator, **changes: Any) -> Trainer[Any, Any]:
    """Return a trainer on wrapped states that does what the inner one does, except for what is given.

    Args:
        trainer: the inner trainer.
        again: does the same to another inner trainer, that uses its gradients in another way: the combinator, or a
            `functools.partial` of it, whose name goes into the trainer's text.
        changes: fields of the new trainer; `init` and `step` at least.
    """
    lifted = {
        "setup": lift(trainer.setup),
        "teardown": lift(trainer.teardown),
        "receive": lift(trainer.receive),
        "publish": lambda state: trainer.publish(state.inner),  # pyright: ignore[reportUnknownLambdaType]
    }
    kind = f"{getattr(again, 'func', again).__name__}({trainer.kind})"
    change = lift_optimization(trainer, again)
    return trainer._replace(**{**lifted, "with_optimization": change, "kind": kind, **changes})


def lift_optimization(trainer: Trainer[Any, Any], again: Combinator) -> Callable[[Any], Trainer[Any, Any]] | None:
    """Return how a trainer around another one changes what the inner one does with gradients.

    Args:
        trainer: the inner trainer.
        again: makes the outer trainer of another inner one.
    """
    change_inner = trainer.with_optimization
    return None if change_inner is None else lambda change: again(change_inner(change))


def with_params(trainer: Trainer[Any, Any], state: Any, params: Params) -> Any:
    """Return a trainer's state with other parameters, or with other ones for some of its models.

    Args:
        trainer: whose state it is.
        state: any state, wrapped or not.
        params: models by name; or the whole tree, where the parameters are not by name.
    """
    if isinstance(params, Mapping):
        return trainer.receive(state, params)
    if isinstance(state, WrappedState):
        return lift(lambda inner: with_params(trainer, inner, params))(state)
    return state.replace(params=params)


def check_trainer_given(name: str, trainer: Any) -> None:
    """Raise if a combinator is given what is no trainer.

    Raises:
        InvalidValueError: naming the combinator.

    Example:
        >>> check_trainer_given("ema", 1)
        Traceback (most recent call last):
        ...
        pamiq_jax.errors.InvalidValueError: ema(trainer) is 'int', expected a Trainer; make one with gradient_trainer...
    """
    checked_kind(f"{name}(trainer)", trainer, Trainer, "a Trainer", "make one with gradient_trainer or custom_trainer")


def check_traceable(name: str, trainer: Trainer[Any, Any]) -> None:
    """Raise if a combinator that traces the step is given a trainer that cannot be traced.

    Raises:
        InvalidValueError: naming the combinator.

    Example:
        >>> from pamiq_jax.trainer import custom_trainer
        >>> check_traceable("skip_first", custom_trainer(lambda key, params: 0, lambda state, batch: (state, {})))
    """
    check_trainer_given(name, trainer)
    if not trainer.compiled:
        raise InvalidValueError(
            f"{name}(trainer.compiled)", False, "a trainer whose step can be traced", "decide in the step instead"
        )


def change_optimization[S, B](
    name: str,
    trainer: Trainer[S, B],
    change: Callable[[Optimization], Optimization],
) -> Trainer[S, B]:
    """Return a trainer that is the same but for what it does with gradients.

    Args:
        name: of the combinator, for the error.
        trainer: one that shows its gradients.
        change: `(optimization) -> optimization`.

    Raises:
        InvalidValueError: it is no trainer, or does not show its gradients.
    """
    check_trainer_given(name, trainer)
    if trainer.with_optimization is None:
        raise InvalidValueError(
            f"{name}(trainer)",
            "one that does not show its gradients",
            "a gradient_trainer, linen_trainer or nnx_trainer, or a combinator around one",
            "change the trainers that `alternate` is given, or the optimizer inside a step of your own",
        )
    return trainer.with_optimization(change)._replace(kind=f"{name}({trainer.kind})")
