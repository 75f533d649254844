"""The handle to a launched system: wait for it, command it, look at it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, override

from pamiq_jax.errors import InvalidValueError, QuarantinedError, UnknownNameError
from pamiq_jax.lifecycle import SystemEvent, SystemPhase
from pamiq_jax.publishing import Snapshot
from pamiq_jax.runtime.control import ENDED, ENDING
from pamiq_jax.runtime.engine import Engine
from pamiq_jax.runtime.events import OnTransition
from pamiq_jax.runtime.handle import TrainerHandles
from pamiq_jax.runtime.history import Moment
from pamiq_jax.runtime.origin import Restored
from pamiq_jax.runtime.outside import command, from_outside
from pamiq_jax.runtime.reporting import current_status
from pamiq_jax.runtime.signals import gives_way
from pamiq_jax.runtime.state import Cells, LearnerState
from pamiq_jax.runtime.status import Status, WaitResult
from pamiq_jax.runtime.system import System
from pamiq_jax.types import PyTree

if TYPE_CHECKING:
    from pamiq_jax.checkpoint import StateInfo


class Run:
    """A launched system. Use it as a context manager, or call `stop` in the end.

    All methods may be called from any thread but the system's own: commands raise `OwnThreadError` in its hooks. A
    system whose run nobody holds any more is stopped, with a warning in the log.

    Args:
        system: what was launched.
        engine: its threads.

    Attributes:
        trainers: a `TrainerHandle` for each trainer, by name.
    """

    def __init__(self, system: System, engine: Engine) -> None:
        self._engine = engine
        self._control, self._workers = engine.control, engine.workers
        self._signals = engine.signals
        self.trainers = TrainerHandles(self._workers, system.trainers)
        engine.stop_without(self)

    @override
    def __repr__(self) -> str:
        return f"Run({self._control.phase})"

    def _repr_html_(self) -> str:
        from pamiq_jax.runtime.view import run_html  # only a notebook wants it

        return run_html(self.status, self._workers)

    @property
    def system(self) -> System:
        """What was launched; from READY on with the chunks that `latency_budget_ms` has made of it."""
        return self._workers.system

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if error is None:
            self._control.wait(0, lambda: True)  # raises what nobody has been told yet

    # Waiting.

    def wait(self, seconds: float | None = None) -> WaitResult:
        """Sleep until the system ends, a worker fails, the time is over, or the user interrupts.

        Args:
            seconds: at most so long; None for no limit.

        Raises:
            WorkerError: a worker failed; its `__cause__` says why. Each failure is raised once.
                The agent goes on acting when it was a trainer that failed. Under `keep_acting` no trainer's is raised.
        """
        try:
            with self._stopped_by_interrupt():
                has_ended = self._control.wait(seconds, lambda: self._control.phase in ENDED)
        except KeyboardInterrupt:
            return WaitResult.INTERRUPTED
        if has_ended:
            self._signals.give_way()  # after SIGTERM the main thread leaves from here, whatever comes behind it
        return WaitResult.ENDED if has_ended else WaitResult.TIMEOUT

    @contextlib.contextmanager
    def _stopped_by_interrupt(self) -> Generator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self.stop()
            raise

    @gives_way
    def wait_until_ready(self, timeout: float = 600.0) -> None:
        """Sleep until everything is compiled and version 0 is published. An interrupt stops the system.

        Args:
            timeout: seconds.

        Raises:
            WorkerError: compiling, or restoring a state, failed.
            TimeoutError: it takes longer.
        """
        with self._stopped_by_interrupt():
            self._engine.wait_until_ready(timeout)

    @gives_way
    def wait_for_version(self, version: int, timeout: float) -> Snapshot:
        """Sleep until a version or a later one is published, and return the newest snapshot. Ctrl-C stops the system.

        Args:
            version: the least version to wait for.
            timeout: seconds.

        Raises:
            WorkerError: a worker failed meanwhile; its `__cause__` says why.
            QuarantinedError: a TimeoutError at once, if all trainers that could publish it have failed.
            TimeoutError: naming the newest version, also if the system has ended.
        """
        store, control, workers = self._cells.store, self._control, self._workers

        def is_there() -> bool:
            return store.latest.version >= version

        with self._stopped_by_interrupt():
            if not is_there():
                control.wait(
                    timeout,
                    lambda: is_there() or control.phase in ENDING or bool(workers.nothing_comes()),
                    published=True,
                )
        if not is_there() and (reason := workers.nothing_comes()):
            raise QuarantinedError(f"version {version} will not be published: {reason}; see `run.status`")
        return store.wait_for(version, timeout=0)

    @property
    def _cells(self) -> Cells:
        self.wait_until_ready()
        if self._workers.ready is None:
            raise InvalidValueError("run", str(self._control.phase), "a run that became ready", "see run.status.errors")
        return self._workers.ready.cells

    # Commands.

    @command
    def pause(self, timeout: float = 60.0) -> None:
        """Stop acting and training; return once both stand still, trainers between two chunks, and hooks have returned.

        Args:
            timeout: seconds.

        Raises:
            PauseTimeoutError: a worker did not answer in time.
            InvalidTransitionError: the system does not run.
        """
        self.wait_until_ready()
        self._control.request(SystemEvent.PAUSE, SystemPhase.PAUSED, timeout)

    @command
    def resume(self, timeout: float = 60.0) -> None:
        """Go on from where `pause` stopped. Does nothing if the system runs.

        Args:
            timeout: seconds.

        Raises:
            PauseTimeoutError: a worker did not answer in time.
            InvalidTransitionError: the system neither runs nor is paused.
        """
        self._control.request(SystemEvent.RESUME, SystemPhase.RUNNING, timeout)

    @command
    def save(self, timeout: float = 60.0) -> StateInfo:
        """Save the system as it is now, and return what is known of the state once it is safe on the disk.

        Nobody stands still for it, and it works while the system is paused.

        Args:
            timeout: seconds.

        Raises:
            InvalidValueError: the run has no directory.
            CheckpointWriteError: it could not be written; earlier states are as they were, and the system goes on.
            TimeoutError: the training thread did not come to it, or writing takes longer.

        Example:
            >>> import tempfile, jax.numpy as jnp, pamiq_jax as pj
            >>> system = pj.System(models={"m": pj.Model(jnp.zeros(3))})
            >>> directory = tempfile.mkdtemp()
            >>> with pj.launch(system, directory=directory) as run:
            ...     info = run.save()
            >>> with pj.launch(system, directory=directory, resume=True) as run:
            ...     run.wait_until_ready()
            ...     print(run.restored.state.number == info.number)
            True
        """
        self.wait_until_ready()
        return self._engine.save(timeout)

    @property
    def restored(self) -> Restored | None:
        """What the run has begun from; None if it began anew. Waits until the system is ready."""
        self.wait_until_ready()
        return self._workers.saving.restored

    @from_outside
    def stop(self, timeout: float = 60.0) -> None:
        """End all threads, and put back what was changed in the process. Doing it twice does no harm.

        Args:
            timeout: seconds, for all of them together.

        Raises:
            TimeoutError: a thread is in a tick that does not end.
        """
        self._engine.stop(timeout)

    # Looking, and bringing data.

    def subscribe(self, on_transition: OnTransition) -> Callable[[], None]:
        """Tell a function of each transition of each machine from here on, and return what ends that.

        Args:
            on_transition: called on the thread that makes the transition, right after it: a `pause` may return while a
                worker's thread still tells of it. What it raises is reported with its name, and stops nobody.

        Example:
            >>> import jax.numpy as jnp, pamiq_jax as pj
            >>> seen = []
            >>> with pj.launch(pj.System(models={"m": pj.Model(jnp.zeros(()))})) as run:
            ...     run.wait_until_ready()
            ...     unsubscribe = run.subscribe(lambda transition: seen.append(str(transition.after)))
            ...     run.pause()
            ...     unsubscribe()
            >>> seen[0]
            'pausing'
        """
        return self._control.subscribe(on_transition)

    @property
    def snapshot(self) -> Snapshot:
        """The newest published snapshot. Waits until the system is ready."""
        return self._cells.store.latest

    @property
    def history(self) -> tuple[Moment, ...]:
        """The last moments after a publication, oldest first; as many as `launch(history=)` keeps."""
        return self._workers.history.moments

    @property
    def learner(self) -> LearnerState:
        """The training side's state as of its last tick; its arrays last only while it is paused or stopped.

        Those of a trainer that has failed within a chunk may be gone: the chunk was to write over them.
        """
        self.wait_until_ready()
        if self._workers.learner is None:
            raise InvalidValueError("run", str(self._control.phase), "a run that became ready", "see run.status.errors")
        return self._workers.learner

    def infer(self, model: str, *arguments: Any) -> Any:
        """Return a model applied with its newest published parameters.

        Args:
            model: the name of a model with an `apply` function.
            arguments: passed on behind the parameters.

        Raises:
            UnknownNameError: there is no such model in the snapshot, or it has no `apply`.
        """
        known = {name: spec.apply for name, spec in self.system.models.items() if spec.infer and spec.apply}
        if model not in known:
            raise UnknownNameError("model with `apply` and `infer=True`", model, known, "run.infer")
        return known[model](self.snapshot.params[model], *arguments)

    def collect(self, buffer: str, record: PyTree) -> bool:
        """Bring a record to a buffer, as the inference thread does; return whether it was kept: not after the end.

        Args:
            buffer: the buffer's name.
            record: copied.

        Raises:
            UnknownNameError: there is no such buffer.
            RecordMismatchError: it differs from the buffer's example.
        """
        cells = self._cells
        if buffer not in cells.collectors:
            raise UnknownNameError("buffer", buffer, cells.collectors, "run.collect")
        is_over = self._control.phase in ENDED
        return not is_over and cells.collectors[buffer].collect(record, cells.store.latest.version)

    @property
    def status(self) -> Status:
        """What the system is doing, as of now. Never waits."""
        return current_status(self._workers, self._engine.rows, self._engine.watchdog)
