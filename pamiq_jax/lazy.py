"""Packages that import a module when one of its names is first used, as PEP 562 allows and SPEC 1 describes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, names_of: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package whose names are in modules that it has not imported.

    Type checkers and editors read the imports that stand beside it under `TYPE_CHECKING`. No module may have the name
    of something that its package exports: once imported, it would stand in its place.

    Args:
        package: its `__name__`.
        names_of: for each module in it the names that are taken from there, with spaces between.

    Example:
        >>> get, names = lazy_names("collections", {"abc": "Mapping Sequence"})
        >>> get("Sequence").__name__, "Mapping" in names()
        ('Sequence', True)
    """
    module_of = {name: module for module, names in names_of.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in module_of:
            return _module(package, name)
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)  # found without us from now on
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return get, names


def _module(package: str, name: str) -> Any:
    """Return a module of a package that nobody has imported yet, as if the package had."""
    module = f"{package}.{name}"
    try:
        if not name.startswith("_"):
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
    raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name, obj=sys.modules[package])
