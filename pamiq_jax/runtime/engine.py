"""The threads of a launched system and all that they share: everything but the handle, which may be dropped."""

from __future__ import annotations

import _thread
import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pamiq_jax.errors import InvalidValueError
from pamiq_jax.lifecycle import SystemEvent
from pamiq_jax.runtime.clock import RealClock
from pamiq_jax.runtime.control import ENDED, STARTING, Control
from pamiq_jax.runtime.failures import worker_error
from pamiq_jax.runtime.history import History
from pamiq_jax.runtime.inferring import inference_thread
from pamiq_jax.runtime.options import Observers, Watching
from pamiq_jax.runtime.process import DirectoryLock, SwitchInterval
from pamiq_jax.runtime.rows import MetricRows
from pamiq_jax.runtime.saving import SavingOptions
from pamiq_jax.runtime.signals import TerminationSignals
from pamiq_jax.runtime.system import System
from pamiq_jax.runtime.watchdog import Watchdog
from pamiq_jax.runtime.workers import TRAINING, Workers

if TYPE_CHECKING:
    from pamiq_jax.checkpoint import StateInfo
    from pamiq_jax.runtime.recorder import Recorder

_LOGGER = logging.getLogger("pamiq_jax")


class Engine:
    """The threads of a launched system, started at once.

    Neither they nor what the process calls back (signals, the interpreter's exit) refer to the `Run`: so it can be
    noticed that nobody holds that any more. The last worker to end has the helpers end too, once all is written.

    Args:
        system: what to run.
        clock: the system's.
        lock: of the run's directory; None if it has none.
        seed: of all randomness.
        strict: see `launch`.
        observers: who looks on.
        saving: when and where states are saved.
        watching: what watches over the threads.
        latency_budget_ms: see `launch`.

    Attributes:
        control: where the threads meet.
        workers: the threads' work.
        rows: metrics on their way.
        watchdog: knows who is stuck.
        signals: what SIGTERM does.
        threads: the workers' threads; the helpers have their own.
    """

    def __init__(
        self,
        system: System,
        clock: RealClock,
        *,
        lock: DirectoryLock | None,
        seed: int,
        strict: bool,
        observers: Observers,
        saving: SavingOptions,
        watching: Watching,
        latency_budget_ms: float | None,
    ) -> None:
        self._lock = lock
        self.signals = TerminationSignals(
            None if lock is None else self.save_by_signal, self.stop, watching.save_signals
        )
        names = (TRAINING, *map(inference_thread, system.interactions))
        self.control = Control(clock, names, () if observers.on_transition is None else (observers.on_transition,))
        directory: Path | None = None if lock is None else lock.directory
        path = None if directory is None else directory / "metrics.jsonl"
        self.rows = MetricRows(path, observers.on_metrics, self._reporting("pamiq-metrics"))
        recorder: Recorder | None = None
        if observers.record and directory is not None:
            from pamiq_jax.runtime.recorder import Recorder

            recorder = Recorder(directory, seed, self._reporting("pamiq-recorder"))
            self.control.subscribe(recorder.noted)
        self.workers = Workers(
            system,
            seed=seed,
            strict=strict,
            clock=clock,
            control=self.control,
            rows=self.rows,
            on_interaction=observers.on_interaction,
            saving=saving.begin(directory, self._reporting("pamiq-saver"), self._save_freed, self.control.heartbeats),
            recorder=recorder,
            faults=watching.faults,
            history=History(observers.history),
            latency_budget_ms=latency_budget_ms,
        )
        self.watchdog = Watchdog(self.control, clock, watching.deadlines)
        targets = {TRAINING: self.workers.train, **self.workers.inference_targets()}
        self.threads = [
            threading.Thread(target=self._work, args=(targets[name],), name=name, daemon=True) for name in names
        ]
        self._working, self._ending = len(self.threads), threading.Lock()
        self._has_stopped, self._stopping = False, threading.Lock()
        self._start()

    def _start(self) -> None:
        SwitchInterval.shorten()
        # Threads that call JAX while the interpreter goes down can crash it.
        atexit.register(self.stop)
        for thread in (self.watchdog, *self.threads):  # a worker that ends at once closes the watchdog
            thread.start()
        if self._lock is not None:
            self.signals.install()

    def _work(self, target: Callable[[], None]) -> None:
        """Do a worker's work. A worker's thread; the last one to end asks the helpers to."""
        try:
            target()
        finally:
            with self._ending:
                self._working -= 1
                is_last = self._working == 0
            if is_last:
                for close in self._closing().values():
                    close(0.0)

    def _closing(self) -> dict[str, Callable[[float], bool]]:
        """Return what ends each helper, by thread: asks it to, waits so many seconds, says whether it has ended."""
        return {
            "pamiq-metrics": self.rows.close,
            "pamiq-watchdog": self.watchdog.close,
            "pamiq-saver": self.workers.saving.close,
            "pamiq-recorder": self.workers.close_recorder,
            "pamiq-signals-wake": self.signals.close,
        }

    def _reporting(self, thread: str) -> Callable[[Exception], None]:
        return lambda error: self.control.report_error(worker_error(thread, error))

    def _save_freed(self) -> None:
        self.control.post(TRAINING, self.workers.save_now)

    def save_by_signal(self) -> None:
        """Save because a signal has come. Called from a thread of the signal's."""
        if self.signals.is_terminating:  # whoever has sent it does not wait for long
            self.workers.saving.hurry()
        self.wait_until_ready(600.0)
        self.save(60.0)

    def wait_until_ready(self, timeout: float) -> None:
        """Sleep until the system runs; see `Run.wait_until_ready`.

        Args:
            timeout: seconds.
        """
        control = self.control
        if self.workers.ready is not None and control.phase not in STARTING:
            return  # a worker's later failure is for `wait` to raise
        if not control.wait(timeout, lambda: control.phase not in STARTING):
            raise TimeoutError(f"the system was not ready within {timeout} seconds; it is {control.phase}")

    def save(self, timeout: float) -> StateInfo:
        """Save a system that is ready; see `Run.save`.

        Args:
            timeout: seconds.
        """
        saver = self.workers.saving.saver
        if saver is None:
            raise InvalidValueError("launch(directory)", None, "a directory, for states to be saved in")
        future = saver.ask()
        if not self.control.post(TRAINING, self.workers.save_now):
            raise TimeoutError(f"the training thread has ended; nothing was saved. The system is {self.control.phase}")
        try:
            return future.result(timeout)
        except TimeoutError:
            raise TimeoutError(f"no state was saved within {timeout} seconds; see run.status.saves") from None

    def stop(self, timeout: float = 60.0) -> None:
        """End all threads, and put back what was changed in the process; see `Run.stop`.

        Args:
            timeout: seconds, for all of them together.
        """
        with self._stopping:  # whoever comes second waits until it is done
            if not self._has_stopped:
                self._stop(timeout)
        self.signals.restore()  # also if another thread has stopped it, which cannot

    def _stop(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout

        def rest() -> float:
            return max(0.0, deadline - time.monotonic())

        self.control.send(SystemEvent.STOP)
        for thread in self.threads:
            thread.join(rest())
        late = [thread.name for thread in self.threads if thread.is_alive()]
        for name, close in self._closing().items():
            if not late and not close(rest()):
                late = [name]
        if late:
            raise TimeoutError(
                f"{', '.join(late)} did not end within {timeout} seconds; call stop again to wait longer"
            )
        self._has_stopped = True
        SwitchInterval.restore()
        atexit.unregister(self.stop)
        if self._lock is not None:
            self._lock.release()

    # When nobody holds the handle any more.

    def stop_without(self, handle: object) -> None:
        """Have the system stop, with a warning, as soon as nobody holds a handle any more.

        Args:
            handle: the run.
        """
        weakref.finalize(handle, self._dropped).atexit = False  # `stop` is called then anyway

    def _dropped(self) -> None:
        # The thread that the handle was collected in may hold any lock: neither the logger's nor a thread's is taken.
        if not self._has_stopped:
            _thread.start_new_thread(self._stop_dropped, ())

    def _stop_dropped(self) -> None:
        if self.control.phase not in ENDED:
            _LOGGER.warning(
                "nobody holds the handle of a system that runs, so it is stopped; keep what launch returns as long as "
                "it is to run, or write `with pj.launch(system) as run:`"
            )
        try:
            self.stop()
        except Exception:
            _LOGGER.exception("a system whose handle was dropped could not be stopped")
