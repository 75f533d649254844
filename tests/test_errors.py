from __future__ import annotations

import inspect

import jax.numpy as jnp
import pytest

from pamiq_jax import errors

CLASSES = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, errors.PamiqError) and error is not errors.PamiqError
]


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_each_error_is_also_the_builtin_one_would_catch(error: type[Exception]) -> None:
    builtins = [base for base in error.__mro__ if base.__module__ == "builtins" and base is not Exception]
    assert issubclass(builtins[0], Exception)
    assert error.__name__.endswith("Error")
    assert inspect.getdoc(error)


def test_a_refused_event_names_what_is_allowed() -> None:
    assert str(errors.InvalidTransitionError("PAUSED", "START", ["RESUME", "STOP"])) == (
        "START is not possible in phase PAUSED; allowed here: RESUME, STOP"
    )
    assert str(errors.InvalidTransitionError("STOPPED", "START", [])).endswith("no event: the phase is final")


def test_a_value_out_of_range_comes_with_range_and_remedy() -> None:
    assert str(errors.InvalidValueError("f(x)", -1, "at least 0")) == "f(x) is -1, expected at least 0"
    assert str(errors.InvalidValueError("f(x)", "a", "a tuple", "write ('a',)")) == (
        "f(x) is 'a', expected a tuple; write ('a',)"
    )


def test_an_unknown_name_lists_the_known_ones() -> None:
    error = errors.UnknownNameError("model", "x", ["b", "a"], "trainer 'vae'")
    assert str(error) == "trainer 'vae': no model is named 'x'; known: 'a', 'b'"
    assert str(errors.UnknownNameError("buffer", "x", [])) == "no buffer is named 'x'; known: none"
    odd = errors.UnknownNameError("entry of the data", "x", ["y"])
    assert str(odd) == "no entry of the data is named 'x'; known: 'y'"


def test_a_losss_output_is_described_by_its_parts() -> None:
    assert "loss_fn returned (array[2], dict), expected" in str(errors.LossOutputError((jnp.ones(2), {})))
    assert "loss_fn returned float, expected" in str(errors.LossOutputError(1.0))


def test_a_workers_error_says_who_and_why() -> None:
    error = errors.WorkerError("pamiq-training", ValueError("bad batch"))
    assert (error.worker, str(error)) == ("pamiq-training", "worker 'pamiq-training' failed: ValueError: bad batch")


def test_a_broken_contract_says_which_function_and_promise() -> None:
    error = errors.ContractError("step", "it is pure", "leaf .params changed")
    assert str(error) == "step: it does not hold that it is pure: leaf .params changed"
    assert (error.function, error.promise) == ("step", "it is pure")
