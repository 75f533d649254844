"""Seconds to import the package, and from `launch` to the first action, with and without JAX's compilation cache."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Comparison, alternate, report

ROOT = Path(__file__).parents[1]
_TIMED = "import time; started = time.perf_counter()\n{}\nprint(time.perf_counter() - started)"
_REFERENCE = "import jax, flax, optax"
_LAUNCH = """
import threading, time
import jax, jax.numpy as jnp, numpy as np, optax
import pamiq_jax as pj
from benchmarks.two_threads import World, system
acted = threading.Event()
world = World()
started = time.perf_counter()
with pj.launch(system(world, 16, None, in_python=False), on_interaction=lambda tick: acted.set()) as run:
    assert acted.wait(300)
    print(time.perf_counter() - started)
"""


def _seconds(program: str, **environment: str) -> float:
    """Return what a program prints, in a process of its own."""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        # As where it is installed: all that is imported has been compiled to bytecode, which the first run sees to.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "", **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    return float(result.stdout)


def _first_and_second(runs: int) -> tuple[list[float], list[float]]:
    """Return the seconds to the first action of starts that fill the cache, and of those that find it filled."""
    first, second = list[float](), list[float]()
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="startup-") as cache:
            first.append(_seconds(_LAUNCH, XDG_CACHE_HOME=cache))
            second.append(_seconds(_LAUNCH, XDG_CACHE_HOME=cache))
    return first, second


def names_of_readme() -> list[str]:
    """Return the names of `pj` that the README's first program uses: only what is used is imported."""
    program = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    return sorted(set(re.findall(r"\bpj\.(\w+)", program)))


def _import_row(*, quick: bool) -> dict[str, object]:
    """Return the row for the import with the names that the README's first program uses, and beside it with others."""
    runs = 5 if quick else 15

    def compared(program: str) -> Comparison:
        timed = _TIMED.format(program)
        return alternate(lambda: _seconds(timed), lambda: _seconds(_TIMED.format(_REFERENCE)), runs=runs)

    def ratio_of(program: str) -> float:
        comparison = compared(program)
        return statistics.median(comparison.ours) / statistics.median(comparison.reference)

    used = ", ".join(f"pj.{name}" for name in names_of_readme())
    comparison = compared(f"{_REFERENCE}\nimport pamiq_jax as pj\n{used}")
    more: dict[str, object] = {
        "names": names_of_readme(),
        "ratio_of_least": min(comparison.ours) / min(comparison.reference),
    }
    if not quick:
        launched = f"{_REFERENCE}\nimport pamiq_jax as pj\n{used}\nimport pamiq_jax.runtime.engine"
        more["ratio_with_what_launch_imports"] = ratio_of(launched)
        more["ratio_of_the_import_alone"] = ratio_of("import pamiq_jax")
        more["ratio_with_every_name"] = ratio_of(f"{_REFERENCE}\nfrom pamiq_jax import *")
    return report("startup: import", comparison, reference_name=_REFERENCE, unit="s", goal="<= 1.1", more=more)


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for the import, and one for the second start over the first."""
    without = [_seconds(_LAUNCH, JAX_ENABLE_COMPILATION_CACHE="false") for _ in range(1 if quick else 5)]
    first, second = _first_and_second(5)
    more: dict[str, object] = {"without_a_cache_s": statistics.median(without)}
    return [
        _import_row(quick=quick),
        report(
            "startup: launch to first action",
            Comparison(second, first),
            reference_name="the first start, which fills JAX's cache (ours: the second)",
            unit="s",
            goal="< 1",
            more=more,
        ),
    ]
