"""The demo from launch to report."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from pamiq_jax.demo.cartpole import SOLVED_RETURN, CartPoleConfig, cartpole_system
from pamiq_jax.demo.frame import Frame, Rates, plain_line
from pamiq_jax.demo.live import panel
from pamiq_jax.demo.recorder import Recorder
from pamiq_jax.demo.report import summarize, write_report
from pamiq_jax.errors import DirectoryInUseError
from pamiq_jax.lifecycle import SystemPhase
from pamiq_jax.runtime import Run, Status, WaitResult, launch

type Show = Callable[[Frame], None]
"""Shows a moment to the user."""

_LOOK_SECONDS = 0.2
_NOTHING = Status(SystemPhase.NEW, {}, 0, {}, 0, ())


def run_cartpole(*, seed: int = 0, seconds: float = 60.0, plain: bool = False, directory: Path | None = None) -> int:
    """Let an agent learn CartPole until it is solved, time is up or the user interrupts; return the exit code.

    0 in these three cases, 1 after a failure. `summary.json` is written in all of them.

    Args:
        seed: of everything random.
        seconds: at most so long, from launch on.
        plain: print lines instead of a live view; also done where the output is no terminal.
        directory: for the files; by default a new one under `runs/cartpole`.
    """
    try:
        place = _prepare(directory)
    except FileExistsError as error:
        print(error, file=sys.stderr)
        return 1
    console = Console(highlight=False)
    session = Session(seed, seconds, place)
    with _view(console, plain) as show:
        session.follow(show)
        show(session.frame())
    summary = session.report()
    _print_result(console, summary, session)
    return 1 if "error" in summary else 0


class Session:
    """One launched run of the demo and what is known of it.

    Args:
        seed: of everything random.
        seconds: at most so long.
        directory: for the files; it exists.
    """

    def __init__(self, seed: int, seconds: float, directory: Path) -> None:
        self.seed, self.limit_seconds, self.directory = seed, seconds, directory
        self.config = CartPoleConfig()
        self.recorder = Recorder(self.config.num_envs, SOLVED_RETURN)
        self.status = _NOTHING
        self.error: str | None = None
        self.is_interrupted = False
        self._rates = Rates()
        self._ended: float | None = None

    def follow(self, show: Show) -> None:
        """Launch, look on until the end, and stop. What goes wrong is kept for the report.

        Args:
            show: called several times a second.
        """
        try:
            system = cartpole_system(self.config, seed=self.seed)
            self.recorder = Recorder(self.config.num_envs, SOLVED_RETURN)
            run = launch(system, directory=self.directory, seed=self.seed, on_interaction=self.recorder)
            try:
                self._look_on(run, show)
            finally:
                self._ended = self.recorder.seconds()
                run.stop()
                self.status = run.status
        except KeyboardInterrupt:
            self.is_interrupted = True
        except Exception as error:  # whatever it is, the report says it
            self.error = f"{type(error).__name__}: {error}"

    def _look_on(self, run: Run, show: Show) -> None:
        while self.recorder.observed.solved_seconds is None:
            left = self.limit_seconds - self.recorder.seconds()
            if left <= 0:
                return
            result = run.wait(min(left, _LOOK_SECONDS))
            if result is not WaitResult.TIMEOUT:
                self.is_interrupted = result is WaitResult.INTERRUPTED
                return
            self.status = run.status
            show(self.frame())

    def frame(self) -> Frame:
        """Return the present moment; after the end, that moment."""
        observed = self.recorder.observed
        seconds = self.recorder.seconds() if self._ended is None else self._ended
        train_steps = sum(trainer.steps for trainer in self.status.trainers.values())
        rates = self._rates.add(seconds, observed.environment_steps, train_steps)
        curve = self.recorder.curve[:]
        return Frame(self.seed, seconds, self.limit_seconds, self.status, observed, curve, *rates)

    def report(self) -> dict[str, Any]:
        """Write the files and return the summary."""
        frame = self.frame()
        errors = self.error or (self.status.errors[0] if self.status.errors else None)
        summary = summarize(frame, errors)
        write_report(self.directory, summary, frame.curve)
        return summary


def _prepare(directory: Path | None) -> Path:
    """Return an existing directory for a run, without the files of another one."""
    if directory is None:
        return _new_directory(Path("runs") / "cartpole")
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("summary.json", "metrics.jsonl"):
        if (directory / name).exists():
            raise DirectoryInUseError(f"{directory} holds the {name} of another run; name a new --directory")
    return directory


def _new_directory(parent: Path) -> Path:
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for name in (stamp, *(f"{stamp}_{number}" for number in range(2, 1000))):
        with contextlib.suppress(FileExistsError):
            (parent / name).mkdir(parents=True)
            return parent / name
    raise FileExistsError(f"{parent} holds a thousand runs of this second; name a new --directory")


@contextlib.contextmanager
def _view(console: Console, plain: bool) -> Generator[Show, None, None]:
    if plain or not console.is_terminal:
        yield _EverySecond()
        return
    with Live(console=console, auto_refresh=False) as live:
        # Two columns stay free: a terminal writes "^C" there, which would wrap and shift the panel.
        yield lambda frame: live.update(panel(frame, console.width - 2), refresh=True)


class _EverySecond:
    """Prints a line for each second that has begun."""

    def __init__(self) -> None:
        self._printed = 0

    def __call__(self, frame: Frame) -> None:
        if int(frame.seconds) > self._printed:
            self._printed = int(frame.seconds)
            print(plain_line(frame), flush=True)


def _print_result(console: Console, summary: dict[str, Any], session: Session) -> None:
    seconds = f"{summary['seconds']:.1f} s"
    if "error" in summary:
        console.print(f"Failed after {seconds}: {summary['error']}", style="red", markup=False, soft_wrap=True)
    elif summary["solved"]:
        reached = f"mean return {summary['mean_return_last_100']:.1f} over the last 100 episodes"
        steps = f"{summary['environment_steps']:,} environment steps"
        console.print(f"Solved in {seconds}: {reached}, {steps}.", soft_wrap=True)
    else:
        console.print(f"Interrupted after {seconds}." if session.is_interrupted else f"Not solved in {seconds}.")
    console.print(f"See summary.json, metrics.jsonl and learning_curve.png in {session.directory}", soft_wrap=True)
