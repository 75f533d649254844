"""Let the API page show `Example:` in a docstring as an example.

Griffe, which reads docstrings for mkdocstrings, knows only the plural. Under the singular `>>>` becomes a quotation.
"""

from __future__ import annotations

import re
from typing import Any, override

import griffe


class ExampleSections(griffe.Extension):
    """Reads `Example:` as `Examples:`; the files stay as they are."""

    @override
    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object that was just found."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
