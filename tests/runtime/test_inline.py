"""What is called inline: once, on its own thread, with its own errors, and computed by that thread."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.runtime import inline
from pamiq_jax.runtime.inline import call_inline
from tests.runtime.fakes import World


def _long_program() -> Callable[[], jax.Array]:
    """Return a program that takes some hundredths of a second, called once already."""
    program = jax.jit(lambda x: jax.lax.fori_loop(0, 300, lambda _, x: jnp.tanh(x @ x), x))
    x = jax.block_until_ready(jnp.eye(200))
    program(x).block_until_ready()
    return lambda: program(x)


def test_what_is_called_inline_is_computed_when_the_call_returns() -> None:
    program = _long_program()
    ready: list[bool] = []
    outside = program()
    assert not outside.is_ready(), "XLA computes it on a thread of its own: else nothing is shown here"
    outside.block_until_ready()  # what a thread has under way already, that it does not overtake
    call_inline(lambda: ready.append(program().is_ready()))
    assert ready == [True]


def test_other_threads_go_on_meanwhile() -> None:
    program, seen, is_over = _long_program(), [0], threading.Event()

    def count() -> None:
        while not is_over.is_set():
            seen[0] += 1

    counting = threading.Thread(target=count)
    counting.start()
    counts: list[int] = []

    def compute() -> None:
        counts.append(seen[0])
        program()
        counts.append(seen[0])

    call_inline(compute)
    is_over.set()
    counting.join()
    assert counts[1] > counts[0]


def test_it_is_called_once_on_the_calling_thread_on_the_same_default_device() -> None:
    called: list[tuple[int, Any]] = []
    call_inline(lambda: called.append((threading.get_ident(), jax.config.jax_default_device)))
    assert called == [(threading.get_ident(), jax.config.jax_default_device)]
    cpu = jax.devices("cpu")[0]
    with jax.default_device(cpu):
        call_inline(lambda: called.append((threading.get_ident(), jax.config.jax_default_device)))
    assert called[1] == (threading.get_ident(), cpu)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_what_it_raises_is_raised_unchanged_and_not_logged(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        call_inline(fail)
    assert caught.value is error
    assert not caplog.records
    done: list[int] = []
    call_inline(lambda: done.append(1))
    assert done == [1], "the next call has its place"


def test_more_threads_than_there_are_places_for_are_all_called() -> None:
    count, begun, release = 40, threading.Semaphore(0), threading.Event()

    def wait() -> None:
        begun.release()
        release.wait(60)

    threads = [threading.Thread(target=call_inline, args=(wait,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    assert all(begun.acquire(timeout=60) for _ in range(count))
    assert float(jax.jit(lambda x: x + 1)(1.0)) == 2, "others' programs still find a place on the device"
    release.set()
    for thread in threads:
        thread.join(60)


def test_a_call_within_a_call_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    call_inline(lambda: call_inline(lambda: done.append(1)))
    assert done == [1]
    monkeypatch.setattr(inline, "inline_program", lambda: None)  # JAX without a CPU
    call_inline(lambda: done.append(2))
    monkeypatch.setattr(inline, "inline_program", lambda: lambda: None)  # JAX that calls it elsewhere
    call_inline(lambda: done.append(3))
    monkeypatch.undo()
    monkeypatch.setattr(inline.ctypes, "CDLL", lambda name: object())  # a C library without <fenv.h>
    call_inline(lambda: done.append(4))
    assert done == [1, 2, 3, 4]


def test_what_is_called_computes_with_subnormal_numbers_as_its_thread_does() -> None:
    smallest, program = np.float32(1e-40), jax.jit(lambda x: x + 1)
    seen: list[float] = []

    def compute() -> None:
        seen.append(float(smallest * np.float32(1)))
        program(1.0).block_until_ready()
        seen.append(float(smallest * np.float32(1)))

    compute()
    call_inline(compute)
    compute()
    assert seen == [float(smallest)] * 6


@pytest.mark.parametrize(
    "work", ["pass", "time.sleep(0.001)", "time.sleep(1.05)", "time.sleep(1000)", "jax.numpy.ones(3).sum()"]
)
def test_a_thread_that_never_ends_does_not_change_how_the_process_ends(work: str) -> None:
    program = f"""
import sys, threading, time, jax
from pamiq_jax.runtime.inline import call_inline
begun = threading.Event()
def work():
    begun.set()
    while True: {work}
threading.Thread(target=call_inline, args=(work,), daemon=True).start()
assert begun.wait(60)
sys.exit(3)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (3, "")


def test_a_python_agent_may_start_a_program_and_go_on() -> None:
    program, still_computed = _long_program(), []

    class Starting:
        extras: dict[str, Any] = {}  # noqa: RUF012

        def reset(self, seed: int) -> None:
            pass

        def act(self, params: Any, observation: Any) -> Any:
            result = program()
            still_computed.append(not result.is_ready())
            result.block_until_ready()
            return np.float32(0), {}

    interaction = pj.Interaction(Starting(), World(), 0.01)
    with pj.launch(pj.System(models={"policy": pj.Model(jnp.zeros(3))}, interaction=interaction)) as run:
        run.wait_until_ready()
        while run.status.inference.ticks < 3:
            run.wait(0.01)
    assert all(still_computed)


def test_a_callback_of_the_policy_keeps_what_follows_inline() -> None:
    program, ready = _long_program(), []

    def act() -> None:
        jax.block_until_ready(jax.jit(lambda: jax.pure_callback(lambda: jnp.float32(1), jnp.zeros(())))())
        ready.append(program().is_ready())

    call_inline(act)
    assert ready == [True]


def test_barriers_of_other_threads_do_not_wait_for_it() -> None:
    begun, release = threading.Event(), threading.Event()
    thread = threading.Thread(target=call_inline, args=(lambda: (begun.set(), release.wait(60)),))
    thread.start()
    assert begun.wait(60)
    jax.effects_barrier()
    assert thread.is_alive()
    release.set()
    thread.join(60)
