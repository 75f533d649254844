"""What a user's step returned: which of it goes on, and what are metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax import trees
from pamiq_jax.errors import StepSignatureError, StepStructureError
from pamiq_jax.trainer.priorities import PRIORITIES
from pamiq_jax.trainer.signature import DECLARE, Output, StepSignature
from pamiq_jax.types import Metrics, PyTree


class StepOutput(NamedTuple):
    """What a step made: the values that go on, the keys that it gave back, by name, and its metrics."""

    values: dict[str, PyTree]
    keys: dict[str, jax.Array]
    metrics: Metrics


def read_output(
    signature: StepSignature, values: Mapping[str, PyTree], keys: Mapping[str, jax.Array], output: Any
) -> StepOutput:
    """Return what a step made of the values that go on, which keys came back, and its metrics.

    Names decide, declared ones or those of a dict or a named tuple. Without names an output is the value whose form
    it has, if no other output and no other value has that form. A single number is never known by its form, for a
    loss has the same.

    Args:
        signature: the step's.
        values: those that it was given, by name.
        keys: those that it was given beside them; it need not return them.
        output: what it returned.

    Raises:
        StepSignatureError: a value that should go on is not there, or cannot be told from another.
        StepStructureError: a metric is no number.

    Example:
        >>> signature = StepSignature("update", ("w", "key", "batch"))
        >>> key = jax.random.key(0)
        >>> output = read_output(signature, {"w": jnp.zeros(2)}, {"key": key}, (jnp.ones(2), key, jnp.float32(0.5)))
        >>> output.values, list(output.keys), output.metrics
        ({'w': Array([1., 1.], dtype=float32)}, ['key'], {'loss': Array(0.5, dtype=float32)})
    """
    _check_arrays(output)
    carried = {**keys, **values}
    parts = _declared(signature, output) if signature.outputs is not None else _by_name(values, output)
    if parts is None:
        parts = _by_form(signature, values, carried, output)
    for name in carried:
        if name in parts and (problem := trees.difference(carried[name], parts[name])) is not None:
            raise StepSignatureError(
                signature.step,
                f"{name} came back in another form: {problem}",
                "return it in the form that it came in, and declare the names in the order that they come back",
            )
    new = {name: parts.pop(name) for name in carried if name in parts}
    # Where outputs are declared, what is not among them is a constant.
    return StepOutput(
        {name: new.get(name, old) for name, old in values.items()},
        {name: new[name] for name in keys if name in new},
        _metrics(parts),
    )


def _check_arrays(output: Any) -> None:
    for path, leaf in jax.tree_util.tree_flatten_with_path(output)[0]:
        is_number = isinstance(leaf, bool | int | float | complex)
        is_array = isinstance(leaf, np.ndarray | np.generic) and (
            leaf.dtype == np.bool_ or jnp.issubdtype(leaf.dtype, np.number)
        )
        if not (is_number or is_array or isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)):
            raise StepStructureError(
                f"step returned {leaf!r:.80} at output{jax.tree_util.keystr(path)}, expected an array or a number; "
                "leave out of the step's results what is neither, such as text for a log"
            )


def _declared(signature: StepSignature, output: Any) -> dict[str, Any]:
    assert signature.outputs is not None
    outputs = signature.outputs
    is_whole = len(outputs) == 1 and (outputs[0] in signature.inputs or not _is_tuple(output))
    return dict(_named(signature, outputs[0] if is_whole else outputs, output))


def _named(signature: StepSignature, outputs: Output, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(outputs, str):
        yield outputs, value
        return
    if not isinstance(value, tuple | list) or len(cast(Sequence[Any], value)) != len(outputs):
        got = f"{len(cast(Sequence[Any], value))} values" if _is_tuple(value) else type(value).__name__
        raise StepSignatureError(signature.step, f"it returned {got}, declared are {_text(outputs)}", DECLARE)
    for names, part in zip(outputs, cast(Sequence[Any], value), strict=True):
        yield from _named(signature, names, part)


def _text(outputs: Output) -> str:
    if isinstance(outputs, str):
        return outputs
    return ", ".join(part if isinstance(part, str) else f"({_text(part)})" for part in outputs)


def _is_tuple(value: Any) -> bool:
    """Return whether it is a plain sequence, which says nothing of its parts' names."""
    return isinstance(value, tuple | list) and not hasattr(cast(object, value), "_fields")


def _by_name(values: Mapping[str, PyTree], output: Any) -> dict[str, Any] | None:
    """Return outputs by their own names, if all values are among those, or the only value if that is the output."""
    if len(values) == 1 and not _is_number(output) and trees.difference(next(iter(values.values())), output) is None:
        return dict(zip(values, [output], strict=True))
    named = output._asdict() if hasattr(output, "_asdict") else output
    if isinstance(named, dict) and all(name in named for name in values):
        return dict(cast(dict[str, Any], named))
    return None


def _by_form(
    signature: StepSignature, values: Mapping[str, PyTree], carried: Mapping[str, PyTree], output: Any
) -> dict[str, Any]:
    """Return outputs by name: one that has the form of one value, and alone has it, is that value."""
    outputs = list(cast(Sequence[Any], output)) if isinstance(output, tuple | list) else [output]
    # What has no leaves is the same before and after, wherever it is.
    fitting = {name: _fitting(old, outputs) for name, old in carried.items() if jax.tree.leaves(old)}
    alike = _alike(fitting)
    placed = {
        places[0]: name
        for name, places in fitting.items()
        if len(places) == 1 and name not in alike and not _is_number(carried[name])
    }
    if (problem := _problem(values, fitting, alike, outputs)) is not None:
        unplaced = [values[name] for name in values if name in fitting and name not in placed.values()]
        shown = ", ".join(placed.get(place) or _open(unplaced, part) for place, part in enumerate(outputs))
        raise StepSignatureError(
            signature.step,
            problem,
            f'say it with signature="{", ".join(signature.inputs)} -> {shown}", in the place of each ? the name of '
            "what goes on, or another, such as loss; or return a dict by name",
        )
    named: dict[str, Any] = {name: values[name] for name in values if name not in fitting}
    for place, value in enumerate(outputs):
        is_loss = "loss" not in named and _is_number(value)
        named[placed.get(place) or ("loss" if is_loss else f"output_{place}")] = value
    return named


def _fitting(old: PyTree, outputs: Sequence[Any]) -> list[int]:
    return [place for place, value in enumerate(outputs) if trees.difference(old, value) is None]


def _problem(
    values: Mapping[str, PyTree], fitting: Mapping[str, list[int]], alike: Sequence[str], outputs: Sequence[Any]
) -> str | None:
    """Return why it cannot be seen what goes on, None if it can."""
    if alike:
        place = fitting[alike[0]][0]
        return f"{' and '.join(alike)} have one form, so it cannot be seen which of them output {place} is"
    for name, places in fitting.items():
        if name in values and _is_number(values[name]):
            return f"{name} is a single number, as a loss is, so it cannot be seen which output it is, if any"
        if len(places) > 1:
            some = " and ".join(map(str, places))
            return f"outputs {some} both have the form of {name}, so it cannot be seen which of them goes on"
    if missing := [name for name in values if name in fitting and not fitting[name]]:
        return f"of its state, {', '.join(missing)} did not come back: {_tried(values, missing, outputs)}"
    return None


def _alike(fitting: Mapping[str, list[int]]) -> list[str]:
    """Return the first names, two or more, whose form is one, and that of some output."""
    groups = [[name for name in fitting if fitting[name] == places] for places in fitting.values() if places]
    return next((names for names in groups if len(names) > 1), [])


def _is_number(value: Any) -> bool:
    """Return whether it is an array without axes, or a number; a key is none."""
    if isinstance(value, bool | int | float | complex):
        return True
    is_array = isinstance(value, jax.Array | jax.ShapeDtypeStruct | np.ndarray | np.generic)
    return is_array and value.shape == () and not jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _open(unplaced: Sequence[PyTree], value: Any) -> str:
    """Return a place of a declaration that is open: a ?, or one for each part of a tuple that may hold a value."""
    fits = any(trees.difference(old, value) is None for old in unplaced)
    if fits or not any(_has(old, value) for old in unplaced):
        return "?"
    return f"({', '.join(_open(unplaced, part) for part in cast(Sequence[Any], value))})"


def _has(old: PyTree, value: Any) -> bool:
    """Return whether something within tuples has a form."""
    parts = cast(Sequence[Any], value) if _is_tuple(value) else ()
    return any(trees.difference(old, part) is None or _has(old, part) for part in parts)


def _tried(values: Mapping[str, PyTree], missing: Sequence[str], outputs: Sequence[Any]) -> str:
    """Return where a missing value lies deeper, or why no output is it."""
    within = [
        f"{name} may lie within output {place}, a {type(value).__name__}"
        for place, value in enumerate(outputs)
        for name in missing
        if _has(values[name], value)
    ]
    lines = within or [
        f"output {place} as {name}: {trees.difference(values[name], value)}"
        for place, value in enumerate(outputs)
        for name in missing
    ]
    return ("" if within else "tried ") + "; ".join(line[:200] for line in lines[:4])


def _metrics(parts: Mapping[str, Any]) -> Metrics:
    """Return scalars by name; what has axes, as a scan stacks them, is averaged. Priorities stay as they are."""
    metrics: dict[str, jax.Array] = {}
    for name, value in parts.items():
        for path, leaf in jax.tree_util.tree_flatten_with_path(value)[0]:
            words = list(_words(path))
            key = ".".join(words) or name
            key = key if key not in metrics else f"{name}{jax.tree_util.keystr(path)}"
            if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
                raise StepStructureError(
                    f"step returned the metric {key} as a key, expected a number; a key that goes on is declared under "
                    'the name of its argument on both sides, signature="params, key, batch -> params, key, loss"'
                )
            is_kept = key == PRIORITIES or jnp.ndim(leaf) == 0
            metrics[key] = leaf if is_kept else jnp.mean(jnp.asarray(leaf).astype(jnp.float32))
    return metrics


def _words(path: Iterable[Any]) -> Iterable[str]:
    for part in path:
        word = getattr(part, "key", None) if hasattr(part, "key") else getattr(part, "name", None)
        if isinstance(word, str):
            yield word
