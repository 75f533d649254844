"""Have what a thread asks of JAX computed on the CPU by that thread itself, and not by one of XLA's."""

from __future__ import annotations

import atexit
import ctypes
import functools
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.experimental import io_callback

# JAX lets 32 programs be under way on a device, and a thread in `call_inline` is one of them.
_PLACES = threading.BoundedSemaphore(8)
_THREAD = threading.local()
_CALLING: set[int] = set()
_END_SECONDS = 5.0
_ENVIRONMENT_BYTES = 256  # C's `fenv_t` has 16 to 32


def call_inline(function: Callable[[], Any]) -> None:
    """Call a function; programs that it calls on the CPU are computed by the calling thread, while it waits.

    XLA hands a program on the CPU to a thread of its own, whose waking takes longer than a small policy: on the machine
    of docs/benchmarks.md 95 us instead of 14, unless the last program ended less than 10 us ago. The exception is what
    is called from within a host callback: that it computes at once, as another thread might wait for the callback. So
    the function is called from one, with the floating-point environment of its thread: XLA's flushes subnormal numbers
    to zero. JAX's default device is for this thread what it is now. Where there is no place for that (the ninth thread
    at a time; JAX without a CPU), or should JAX do otherwise some day, it is merely called.

    Args:
        function: is called once. What it raises is raised here.

    Example:
        >>> import jax.numpy as jnp
        >>> squares = []
        >>> call_inline(lambda: squares.append(int(jnp.square(3))))
        >>> squares
        [9]
    """
    program, set_floating_point = inline_program(), _floating_point_now()
    is_within = getattr(_THREAD, "call", None) is not None
    if is_within or program is None or set_floating_point is None or not _PLACES.acquire(blocking=False):
        function()
        return
    call, thread = _Call(function, set_floating_point), threading.get_ident()
    try:
        _THREAD.call = call
        _CALLING.add(thread)
        program()
    finally:
        _THREAD.call = None
        _CALLING.discard(thread)
        _PLACES.release()
    if not call.has_begun:
        function()
    if call.error is not None:
        raise call.error


class _Call:
    """A function to be called within a callback, and what it raised there: JAX would log that and raise another."""

    def __init__(self, function: Callable[[], Any], set_floating_point: Callable[[], Any]) -> None:
        self._function, self._device = function, jax.config.jax_default_device
        self._set_floating_point = set_floating_point
        self.has_begun = False
        self.error: BaseException | None = None

    def run(self) -> None:
        self.has_begun = True
        self._set_floating_point()
        try:
            with jax.default_device(self._device):  # within a callback it is the CPU, and programs compiled for it
                self._function()
        except BaseException as error:
            self.error = error


def _run_call() -> None:
    """Run the calling thread's call. Another thread has none: there it does nothing."""
    call: _Call | None = getattr(_THREAD, "call", None)
    if call is not None:
        call.run()


def _floating_point_now() -> Callable[[], Any] | None:
    """Return what sets the calling thread's floating-point environment to what it is now; None without C99's."""
    try:
        library = ctypes.CDLL(None)
        get, set_to = library.fegetenv, library.fesetenv
    except (AttributeError, OSError, TypeError):
        return None
    environment = ctypes.create_string_buffer(_ENVIRONMENT_BYTES)
    return None if get(environment) else functools.partial(set_to, environment)


def _end_calls() -> None:
    """Have threads that would not stop leave their calls, by an exception, before the interpreter goes down.

    A thread that goes on then is ended by it, and from within XLA that takes the process with it, whatever its exit
    code. The exception comes as soon as Python code goes on; for a thread that waits in C for longer than is waited
    here it only has to last until the process is gone. Called at exit, after those who stop systems.
    """
    for thread in _calling():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(SystemExit))
    deadline = time.monotonic() + _END_SECONDS
    while _calling() and time.monotonic() < deadline:
        time.sleep(0.01)


def _calling() -> set[int]:
    """Return the threads that are in a call; in a forked child, none of the parent's."""
    return _CALLING & {thread.ident for thread in threading.enumerate()}


atexit.register(_end_calls)  # earlier than systems are launched, so called later


@functools.cache
def inline_program() -> Callable[[], Any] | None:
    """Return the program that `call_inline` calls, compiled for this process; None if JAX has no CPU.

    Example:
        >>> inline_program() is inline_program()
        True
    """
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
    with jax.default_device(cpu):
        return jax.jit(lambda: io_callback(_run_call, None)).lower().compile()
