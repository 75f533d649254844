"""The peers' side, in an environment of its own: `make bench-peers`. Nothing here imports pamiq_jax."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Generator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
STAMP = ROOT / ".venv-peers" / "peers.stamp"


class Peer:
    """A program of the peers' environment that measures one figure whenever it is asked to. See `answer`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def measure(self) -> float:
        """Return one more figure. The first call waits until the program has warmed up."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print("go", file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.startswith("figure "):
                return float(line.removeprefix("figure "))
        raise RuntimeError(f"{self._process.args} ended with exit code {self._process.wait(60)}")


@contextlib.contextmanager
def peer(program: str, *arguments: object) -> Generator[Peer | None]:
    """Give a peer's program, started; None where the peers are not installed.

    Args:
        program: a module of this package.
        arguments: for it.
    """
    if not STAMP.exists():
        yield None
        return
    command = [str(PYTHON), "-m", f"benchmarks.peers.{program}", *map(str, arguments)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        try:
            yield Peer(process)
        finally:
            process.kill()


def describe_peers() -> str:
    """Return the versions of the peers, or that they are not installed."""
    return STAMP.read_text().strip() if STAMP.exists() else "not installed, so not measured (`make bench-peers`)"
