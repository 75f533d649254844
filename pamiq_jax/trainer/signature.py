"""What a user's step takes and returns: declared in words, or read off its parameters and what comes back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.errors import StepSignatureError
from pamiq_jax.trainer.priorities import PRIORITIES
from pamiq_jax.types import Metrics, PyTree

KEY_NAMES = ("key", "rng", "rng_key", "prng_key", "dropout_key", "dropout_rng")
DECLARE = (
    'declare it: signature="params, opt_state, batch -> params, opt_state, loss", with the names of what `init` makes'
)


class StepSignature(NamedTuple):
    """What a step takes and returns, by name.

    Attributes:
        step: how the step is called in messages.
        inputs: names of its arguments, in order.
        outputs: names of what it returns, in order; None: found by comparing with what it was given.
        by_keyword: those of the inputs that are passed by keyword.
    """

    step: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] | None = None
    by_keyword: frozenset[str] = frozenset()


def step_signature(step: Callable[..., Any], declared: str | None = None) -> StepSignature:
    """Return the signature that was declared, or what a function's parameters say.

    Args:
        step: the function, jitted or not.
        declared: `"params, opt_state, batch -> params, opt_state, loss"`.

    Raises:
        StepSignatureError: nothing is declared and the parameters cannot be read, or what is declared is no signature.

    Example:
        >>> step_signature(lambda params, opt_state, batch: ...).inputs
        ('params', 'opt_state', 'batch')
        >>> step_signature(print, "state, batch -> state, loss")[1:3]
        (('state', 'batch'), ('state', 'loss'))
    """
    name = getattr(step, "__name__", type(step).__name__)
    if declared is not None:
        return _parsed(name, declared)
    try:
        parameters = inspect.signature(step).parameters.values()
    except (TypeError, ValueError) as error:
        raise StepSignatureError(name, f"its parameters cannot be read ({error})", DECLARE) from error
    inputs: list[str] = []
    by_keyword: set[str] = set()
    has_skipped = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise StepSignatureError(name, f"its parameter *{parameter.name} may be anything", DECLARE)
        is_left_out = parameter.kind is parameter.VAR_KEYWORD or parameter.default is not parameter.empty
        if is_left_out and parameter.name not in KEY_NAMES:
            has_skipped = True  # it keeps its default
            continue
        inputs.append(parameter.name)
        if has_skipped or parameter.kind is parameter.KEYWORD_ONLY:
            by_keyword.add(parameter.name)
    return StepSignature(f"{name}({', '.join(inputs)})", tuple(inputs), None, frozenset(by_keyword))


def _parsed(name: str, declared: str) -> StepSignature:
    left, arrow, right = declared.partition("->")
    inputs, outputs = (tuple(part.strip() for part in side.split(",")) for side in (left, right))
    if not arrow or not all(part.isidentifier() for part in (*inputs, *outputs)):
        raise StepSignatureError(name, f"its signature is declared as {declared!r}, which is none", DECLARE)
    for side in (inputs, outputs):
        if twice := sorted({part for part in side if side.count(part) > 1}):
            raise StepSignatureError(name, f"{declared!r} has {', '.join(twice)} twice on one side", DECLARE)
    return StepSignature(f"{name}({', '.join(inputs)})", inputs, outputs)


def bind(
    signature: StepSignature, carried: Mapping[str, PyTree], step: jax.Array, rng_key: jax.Array, batch: PyTree
) -> dict[str, PyTree]:
    """Return what each argument of a step is given, by name.

    Names out of `carried` are that; names of keys get keys of this step; "step" the number of steps before; a
    single other one gets the batch, several get its parts by name, or in order where it is a tuple.

    Raises:
        StepSignatureError: the batch has no such part.

    Example:
        >>> signature = StepSignature("update", ("params", "x", "y"))
        >>> bind(signature, {"params": 1}, jnp.int32(0), jax.random.key(0), {"x": 2, "y": 3})
        {'params': 1, 'x': 2, 'y': 3}
    """
    keys = [name for name in signature.inputs if name in KEY_NAMES and name not in carried]
    split = [rng_key] if len(keys) == 1 else list(jax.random.split(rng_key, len(keys))) if keys else []
    key_by_name = dict(zip(keys, split, strict=True))
    others = {**carried, **key_by_name, **({} if "step" in carried else {"step": step})}
    data = [name for name in signature.inputs if name not in others]
    return {name: {**others, **_parts(signature, data, batch)}[name] for name in signature.inputs}


def _parts(signature: StepSignature, names: Sequence[str], batch: PyTree) -> dict[str, PyTree]:
    if len(names) < 2:
        return dict.fromkeys(names, batch)
    if isinstance(batch, Mapping):
        parts = cast(Mapping[str, Any], batch)
    elif hasattr(batch, "_asdict"):
        parts = batch._asdict()
    elif isinstance(batch, tuple) and len(batch) == len(names):
        parts = dict(zip(names, batch, strict=True))
    else:
        parts = {}
    if missing := [name for name in names if name not in parts]:
        known = ", ".join(map(str, parts)) or f"no names, being a {type(batch).__name__}"
        raise StepSignatureError(
            signature.step,
            f"arguments {', '.join(missing)} are no part of its state, no key, and not in the batch, which has {known}",
            "let `init` return them by name, or give the batch those parts (Schedule(prepare=)); or " + DECLARE,
        )
    return {name: parts[name] for name in names}


def read_output(
    signature: StepSignature, carried: Mapping[str, PyTree], output: Any
) -> tuple[dict[str, PyTree], Metrics]:
    """Return what a step made of the values that go on, by name, and its metrics.

    Args:
        signature: the step's.
        carried: the values that it was given, by name.
        output: what it returned.

    Raises:
        StepSignatureError: a value that should go on is not there, or cannot be told from another.

    Example:
        >>> signature = step_signature(lambda w, opt_state, batch: ...)
        >>> read_output(signature, {"w": jnp.zeros(2)}, (jnp.ones(2), jnp.float32(0.5)))
        ({'w': Array([1., 1.], dtype=float32)}, {'loss': Array(0.5, dtype=float32)})
    """
    parts = _named_output(signature, carried, output)
    new = {name: parts.pop(name) for name in carried if name in parts}
    missing = [name for name in carried if name not in new]
    if missing and signature.outputs is None:  # where outputs are declared, what is not among them is a constant
        raise StepSignatureError(
            signature.step,
            f"of its state, {', '.join(missing)} did not come back: {_tried(carried, output)}",
            "return it in the form that it came in; or " + DECLARE,
        )
    return {**carried, **new}, _metrics(parts)


def _named_output(signature: StepSignature, carried: Mapping[str, PyTree], output: Any) -> dict[str, Any]:
    if signature.outputs is not None:
        values = (output,) if len(signature.outputs) == 1 else output
        if not isinstance(values, tuple | list) or len(values) != len(signature.outputs):
            got = f"{len(output)} values" if isinstance(output, tuple | list) else type(output).__name__
            raise StepSignatureError(
                signature.step, f"it returned {got}, declared are {', '.join(signature.outputs)}", DECLARE
            )
        return dict(zip(signature.outputs, values, strict=True))
    if isinstance(output, dict) and all(name in output for name in carried):
        return dict(output)
    if len(carried) == 1 and trees.difference(next(iter(carried.values())), output) is None:
        return dict(zip(carried, [output], strict=True))
    values = list(output) if isinstance(output, tuple | list) else [output]
    return _matched(signature, carried, values)


def _matched(signature: StepSignature, carried: Mapping[str, PyTree], values: list[Any]) -> dict[str, Any]:
    """Return outputs by name: each that has the form of one value that goes on is that value."""
    named: dict[str, Any] = {}
    for position, value in enumerate(values):
        fitting = [name for name, old in carried.items() if trees.difference(old, value) is None]
        if len(fitting) > 1:
            raise StepSignatureError(
                signature.step,
                f"{' and '.join(fitting)} have one form, so it cannot be seen which of them output {position} is",
                "say so with signature="
                f'"{", ".join(signature.inputs)} -> {", ".join(fitting)}, ...", in the order that they come back',
            )
        if fitting and fitting[0] not in named:
            named[fitting[0]] = value
        else:
            named["loss" if "loss" not in named and _is_scalar(value) else f"output_{position}"] = value
    return named


def _is_scalar(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | float | int) and jnp.shape(value) == ()


def _tried(carried: Mapping[str, PyTree], output: Any) -> str:
    values = list(output) if isinstance(output, tuple | list) else [output]
    lines = [
        f"output {position} as {name}: {trees.difference(old, value)}"
        for position, value in enumerate(values)
        for name, old in carried.items()
        if trees.difference(old, value) is not None
    ]
    return "tried " + "; ".join(line[:200] for line in lines[:4])


def _metrics(parts: Mapping[str, Any]) -> Metrics:
    """Return scalars by name; what has axes, as a scan stacks them, is averaged. Priorities stay as they are."""
    metrics: dict[str, jax.Array] = {}
    for name, value in parts.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
            words = list(_words(path))
            key = ".".join(words) or name
            key = key if key not in metrics else f"{name}{jax.tree_util.keystr(path)}"
            is_kept = key == PRIORITIES or jnp.ndim(leaf) == 0
            metrics[key] = leaf if is_kept else jnp.mean(jnp.asarray(leaf).astype(jnp.float32))
    return metrics


def _words(path: Iterable[Any]) -> Iterable[str]:
    for part in path:
        word = getattr(part, "key", None) if hasattr(part, "key") else getattr(part, "name", None)
        if isinstance(word, str):
            yield word
