"""New names for the parts of a stored system, in the names of its leaves and in the keys of its values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from pamiq_jax.errors import InvalidValueError, UnknownNameError

type Renames = Mapping[str, Mapping[str, str]]
"""`{"trainers": {old name: new name}}`, likewise "models", "buffers" and "interactions"."""

KINDS = ("trainers", "models", "buffers", "interactions")

_ROOM = re.compile(r"^\['(trainers|buffers|interactions)'\]\['([^']*)'\]")
_AFTER = re.compile(r"^\['after'\]\['([^']*)'\]$")
_MODELS = re.compile(r"^\['(?:models|snapshot)'\](?:\['params'\])?")
_KEYS = re.compile(r"(?:\['[^']*'\])+")
_KEY = re.compile(r"\['([^']*)'\]")
_MODEL_LEAF = re.compile(
    r"^(?:\['models'\]|\['snapshot'\]\['params'\]|\['trainers'\]\['[^']*'\]\['state'\]\.(?:params|reads))\['([^']*)'\]"
)


class Renaming:
    """Puts new names into the names of leaves and the keys of a stored value.

    Args:
        rename: new names by old ones, for each kind of part.
        leaves: all stored leaves of a system, by name.

    Raises:
        UnknownNameError: a kind that does not exist, or an old name that is not stored.
        InvalidValueError: it is no mapping of such mappings, or gives two stored parts one name.

    Example:
        >>> names = Renaming({"models": {"policy": "mind"}}, {"['models']['policy']": 0})
        >>> names.leaf("['models']['policy']['w']")
        "['models']['mind']['w']"
    """

    def __init__(self, rename: Renames, leaves: Mapping[str, Any]) -> None:
        check_rename(rename)
        self._rename = rename
        self._stored = {kind: _stored_names(kind, leaves) for kind in KINDS}
        for kind, renames in rename.items():
            self._check_known(kind, renames, leaves)
            _check_distinct(kind, renames, self._stored[kind])

    def keys(self, kind: str, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return values with the new names of their keys.

        Args:
            kind: of what the keys name; nothing changes where parts of this kind have no new names.
            stored: values by old name.
        """
        return {self._new(kind, name): value for name, value in stored.items()}

    def leaf(self, name: str) -> str:
        """Return the name that a stored leaf has now.

        Args:
            name: the one that is stored.
        """
        front, rest = "", name
        if (found := _ROOM.match(name)) is not None:
            kind, old = found.groups()
            front, rest = f"['{kind}']['{self._new(kind, old)}']", name[found.end() :]
            if kind == "trainers" and (followed := _AFTER.match(rest)) is not None:
                return f"{front}['after']['{self._new(kind, followed.group(1))}']"
        elif (found := _MODELS.match(name)) is not None:
            front, rest = name[: found.end()], name[found.end() :]
        return front + _KEYS.sub(self._with_model, rest)

    def _new(self, kind: str, name: str) -> str:
        return self._rename.get(kind, {}).get(name, name)

    def _with_model(self, keys: re.Match[str]) -> str:
        """Return keys that follow each other with the first one that names a model replaced.

        An optimizer's state names a model more than once, after different fields: `.inner_states['m'].mu['m']['w']`.
        What comes after a model's name is its own, though it may be called like another model.
        """
        path, renames = keys.group(), self._rename.get("models", {})
        for part in _KEY.finditer(path):
            if (name := part.group(1)) in self._stored["models"] or name in renames:
                return f"{path[: part.start()]}['{renames.get(name, name)}']{path[part.end() :]}"
        return path

    def _check_known(self, kind: str, renames: Mapping[str, str], leaves: Mapping[str, Any]) -> None:
        for old in renames:
            # A trainer of one's own may keep a model under any key.
            is_known = old in self._stored[kind] or (kind == "models" and any(f"['{old}']" in name for name in leaves))
            if not is_known:
                raise UnknownNameError(
                    kind.removesuffix("s"), old, self._stored[kind], f"rename[{kind!r}], of what is stored"
                )


def _stored_names(kind: str, leaves: Mapping[str, Any]) -> set[str]:
    pattern = _MODEL_LEAF if kind == "models" else re.compile(rf"^\['{kind}'\]\['([^']*)'\]")
    return {found.group(1) for name in leaves if (found := pattern.match(name))}


def check_rename(rename: object) -> None:
    """Raise if new names are not given as `Renames`.

    Raises:
        InvalidValueError: it is no mapping of such mappings.
        UnknownNameError: a kind that does not exist.
    """
    expected = 'a mapping of old names to new ones, like {"old": "new"}'
    if not isinstance(rename, Mapping):
        raise InvalidValueError("rename", rename, f"{expected}, for each of {', '.join(KINDS)}")
    for kind, renames in cast(Mapping[Any, Any], rename).items():
        if kind not in KINDS:
            raise UnknownNameError("kind", kind, KINDS, "rename")
        if not isinstance(renames, Mapping):
            raise InvalidValueError(f"rename[{kind!r}]", renames, expected)
        for name in (part for pair in cast(Mapping[Any, Any], renames).items() for part in pair):
            if not isinstance(name, str):
                raise InvalidValueError(f"rename[{kind!r}]", renames, expected, f"{name!r} is no name")


def _check_distinct(kind: str, renames: Mapping[str, str], stored: set[str]) -> None:
    """Refuse that what is stored under one name would overwrite what is stored under another."""
    olds: dict[str, str] = {}
    for old in sorted(stored | set(renames)):
        new = renames.get(old, old)
        if new in olds:
            raise InvalidValueError(
                f"rename[{kind!r}]",
                dict(renames),
                "distinct names for all that is stored",
                f"{olds[new]!r} and {old!r} would both be {new!r}; give the other one another name too",
            )
        olds[new] = old
