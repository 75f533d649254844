"""Keep the diagrams of a documentation page equal to the transition tables.

Rewrite a page with `python scripts/lifecycle_diagrams.py docs/concepts/lifecycle.md`.
"""

from __future__ import annotations

import re
import sys

from pamiq_jax.errors import InvalidValueError
from pamiq_jax.lifecycle import SYSTEM_TRANSITIONS, TRAINER_TRANSITIONS, mermaid


def refresh(page: str) -> str:
    """Return the Markdown page with both diagrams drawn anew.

    A diagram is the `mermaid` code block right below `<!-- trainer diagram -->` or `<!-- system diagram -->`.

    Raises:
        InvalidValueError: if the page does not have both marked blocks.

    Example:
        >>> lines = [f"<!-- {name} diagram -->{chr(10)}```mermaid{chr(10)}```" for name in ("trainer", "system")]
        >>> refresh(chr(10).join(lines)).splitlines()[3]
        '    [*] --> waiting'
    """
    page = _replace(page, "trainer", mermaid(TRAINER_TRANSITIONS))
    return _replace(page, "system", mermaid(SYSTEM_TRANSITIONS))


def _replace(page: str, name: str, diagram: str) -> str:
    marker = f"<!-- {name} diagram -->"
    head, found, rest = page.partition(f"{marker}\n```mermaid\n")
    if not found or "```" not in rest:
        raise InvalidValueError("page", page[:40], f"Markdown with a mermaid block right below {marker}")
    tail = re.split(r"^(?=```)", rest, maxsplit=1, flags=re.MULTILINE)[-1]
    return f"{head}{found}{diagram}{tail}"


def main(paths: list[str]) -> None:
    """Rewrite the diagrams of each of the Markdown files, in place.

    Example:
        >>> main([])
    """
    for path in paths:
        with open(path, "r+", encoding="utf-8") as file:
            page = refresh(file.read())
            file.seek(0)
            file.write(page)
            file.truncate()


if __name__ == "__main__":
    main(sys.argv[1:])
