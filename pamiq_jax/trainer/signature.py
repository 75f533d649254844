"""What a user's step takes and returns: declared in words, or read off its parameters."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax

from pamiq_jax.errors import InvalidValueError, StepSignatureError
from pamiq_jax.types import PyTree

type Output = str | tuple[Output, ...]
"""The name of what a step returns at one place, or of what lies within a tuple there."""

KEY_NAMES = ("key", "rng", "rng_key", "prng_key", "dropout_key", "dropout_rng")
BATCH_NAMES = ("batch", "minibatch", "data", "transitions", "trajectory", "trajectories", "rollout", "x", "inputs")
DECLARE = (
    'declare it: signature="params, opt_state, batch -> params, opt_state, loss", with the names of what `init` makes'
)


class StepSignature(NamedTuple):
    """What a step takes and returns, by name.

    Attributes:
        step: how the step is called in messages.
        inputs: names of its arguments, in order.
        outputs: names of what it returns, in order, a tuple of names for a tuple; None: found by comparing with what
            it was given.
        by_keyword: those of the inputs that are passed by keyword.
    """

    step: str
    inputs: tuple[str, ...]
    outputs: tuple[Output, ...] | None = None
    by_keyword: frozenset[str] = frozenset()

    @property
    def returned(self) -> tuple[str, ...]:
        """The names of what is declared to come back; none where nothing is declared."""
        return tuple(_flat(self.outputs or ()))


def _flat(outputs: Output) -> Iterator[str]:
    if isinstance(outputs, str):
        yield outputs
    else:
        for part in outputs:
            yield from _flat(part)


def step_signature(step: Callable[..., Any], declared: str | None = None) -> StepSignature:
    """Return the signature that was declared, or what a function's parameters say.

    Args:
        step: the function, jitted or not.
        declared: `"params, opt_state, batch -> params, opt_state, loss"`; what lies in a tuple, in parentheses.

    Raises:
        InvalidValueError: the step is no function, or the declaration no text.
        StepSignatureError: nothing is declared and the parameters cannot be read, or what is declared is no signature,
            or not that of the step.

    Example:
        >>> step_signature(lambda params, opt_state, batch: ...).inputs
        ('params', 'opt_state', 'batch')
        >>> step_signature(lambda s, b: ..., "state, batch -> state, (loss, norm)")[1:3]
        (('state', 'batch'), ('state', ('loss', 'norm')))
    """
    if not callable(step):
        raise InvalidValueError("trainer_from_step(step)", step, "a function that takes one step")
    name = getattr(step, "__name__", type(step).__name__)
    if declared is not None:
        return _parsed(step, name, declared)
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


def _parsed(step: Callable[..., Any], name: str, declared: Any) -> StepSignature:
    if not isinstance(declared, str):
        expected = 'text such as "params, opt_state, batch -> params, opt_state, loss"'
        raise InvalidValueError("trainer_from_step(signature)", declared, expected, "write it as one string")
    left, arrow, right = declared.partition("->")
    inputs, outputs = _names(left), _names(right)
    if not arrow or inputs is None or outputs is None or not all(isinstance(part, str) for part in inputs):
        raise StepSignatureError(name, f"its signature is declared as {declared!r}, which is none", DECLARE)
    for side in (tuple(_flat(inputs)), tuple(_flat(outputs))):
        if twice := sorted({part for part in side if side.count(part) > 1}):
            raise StepSignatureError(name, f"{declared!r} has {', '.join(twice)} twice on one side", DECLARE)
    inputs = tuple(_flat(inputs))
    signature = StepSignature(f"{name}({', '.join(inputs)})", inputs, outputs, _by_keyword(step, name, inputs))
    if not set(inputs) & set(signature.returned):
        problem = f"{declared!r} has nothing on both sides, so nothing would go on from step to step"
        raise StepSignatureError(name, problem, DECLARE)
    return signature


def _names(side: str) -> tuple[Output, ...] | None:
    """Return the names on one side of a declaration; None if it is something else."""
    try:
        parsed = _named(ast.parse(side.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        return None
    return (parsed,) if isinstance(parsed, str) else parsed


def _named(node: ast.expr) -> Output:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Tuple) and node.elts:
        return tuple(_named(part) for part in node.elts)
    raise ValueError("neither a name nor some")


def _by_keyword(step: Callable[..., Any], name: str, inputs: tuple[str, ...]) -> frozenset[str]:
    """Return which declared arguments go by keyword, and refuse those that the step cannot be called with."""
    try:
        signature = inspect.signature(step)
    except (TypeError, ValueError):  # of a built-in function, for example: it is seen when it is called
        return frozenset()
    parameters = signature.parameters
    by_keyword = {
        part for part in inputs if part in parameters and parameters[part].kind is inspect.Parameter.KEYWORD_ONLY
    }
    try:
        signature.bind(*(part for part in inputs if part not in by_keyword), **dict.fromkeys(by_keyword))
    except TypeError as error:
        problem = f"it takes {signature}, declared are {len(inputs)} arguments: {', '.join(inputs)} ({error})"
        remedy = "declare all that it takes, in its order, and bind what is no data with functools.partial"
        raise StepSignatureError(name, problem, remedy) from error
    return frozenset(by_keyword)


def step_keys(
    signature: StepSignature, values: Mapping[str, PyTree], rng_key: jax.Array, step: jax.Array
) -> dict[str, jax.Array]:
    """Return the keys that a step is given, by the names of its arguments, unless keys are among its values.

    Args:
        signature: the step's.
        values: what goes on, by name.
        rng_key: `key[]` of the trainer.
        step: the number of the step.

    Example:
        >>> signature = StepSignature("update", ("params", "key", "batch"))
        >>> sorted(step_keys(signature, {"params": 1}, jax.random.key(0), 3))
        ['key']
    """
    names = [name for name in signature.inputs if name in KEY_NAMES and name not in values]
    if not names:
        return {}
    key = jax.random.fold_in(rng_key, step)
    return dict(zip(names, [key] if len(names) == 1 else list(jax.random.split(key, len(names))), strict=True))


def bind(signature: StepSignature, carried: Mapping[str, PyTree], step: jax.Array, batch: PyTree) -> dict[str, PyTree]:
    """Return what each argument of a step is given, by name.

    Names out of `carried` are that; "step" the number of steps before; a single other one gets the batch, several get
    its parts by name, or in order where it is a tuple.

    Raises:
        StepSignatureError: the batch has no such part.

    Example:
        >>> signature = StepSignature("update", ("params", "x", "y"))
        >>> bind(signature, {"params": 1}, 0, {"x": 2, "y": 3})
        {'params': 1, 'x': 2, 'y': 3}
    """
    others = {**({} if "step" in carried else {"step": step}), **carried}
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
            "let `init` return them by name, or give the batch those parts (Schedule(prepare=)); bind what is neither, "
            f"such as a flag, before: functools.partial(step, {missing[-1]}=...); or {DECLARE}",
        )
    return {name: parts[name] for name in names}
