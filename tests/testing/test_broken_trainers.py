"""Each check of `check_trainer` catches a trainer that breaks just that promise."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pamiq_jax.errors import ContractError
from pamiq_jax.testing import check_trainer
from pamiq_jax.trainer import Trainer, gradient_trainer

BATCH = jnp.arange(4.0)
PARAMS = {"w": jnp.ones(3)}


def loss_fn(params: Any, batch: jax.Array, rng_key: jax.Array) -> Any:
    target = jnp.mean(batch) + jax.random.normal(rng_key)
    return jnp.mean((params["w"] - target) ** 2), {}


GOOD: Trainer[Any, Any] = gradient_trainer(loss_fn, optax.sgd(0.1, momentum=0.9))


def test_what_is_broken_below_is_sound_before() -> None:
    check_trainer(GOOD, PARAMS, BATCH)


def with_step(change: Callable[[Any], Any]) -> Trainer[Any, Any]:
    """Return the good trainer with something done to the state that its step returns."""

    def step(state: Any, batch: Any) -> Any:
        after, metrics = GOOD.step(state, batch)
        return change(after), metrics

    return GOOD._replace(step=step)


def hidden_counter() -> Trainer[Any, Any]:
    calls: list[int] = []

    def change(state: Any) -> Any:
        calls.append(0)
        return state.replace(params=jax.tree.map(lambda leaf: leaf + len(calls), state.params))

    return with_step(change)


def remembers_by_identity() -> Trainer[Any, Any]:
    seen: list[Any] = []

    def step(state: Any, batch: Any) -> Any:
        if not any(state is other for other in seen):
            seen.append(state)
        place = next(index for index, other in enumerate(seen) if state is other)
        after, metrics = GOOD.step(state, batch)
        return after, {**metrics, "place": jnp.int32(place)}

    return GOOD._replace(step=step)


def changes_its_input() -> Trainer[Any, Any]:
    def step(state: Any, batch: Any) -> Any:
        state.params["w"] = state.params["w"] + 1
        return GOOD.step(state, batch)

    return GOOD._replace(step=step)


def donates_on_its_own() -> Trainer[Any, Any]:
    return GOOD._replace(step=jax.jit(GOOD.step, donate_argnums=0), compiled=False)


def decides_in_python() -> Trainer[Any, Any]:
    def step(state: Any, batch: Any) -> Any:
        return GOOD.step(state, batch) if float(batch[0]) < 5 else (state, {})

    return GOOD._replace(step=step)


def knows_when_it_is_traced(function: str) -> Trainer[Any, Any]:
    def change(state: Any) -> Any:
        state = GOOD.step(state, BATCH)[0] if function == "step" else state
        traced = isinstance(state.step, jax.core.Tracer)
        return state.replace(params={"w": state.params["w"] + 1}) if traced else state

    if function == "step":
        return GOOD._replace(step=lambda state, batch: (change(state), {}))
    return GOOD._replace(**{function: change})


def fresh_static_fields() -> Trainer[Any, Any]:
    return with_step(lambda state: state.replace(params={"w": jax.tree_util.Partial(lambda: 0, state.params["w"])}))


def calls_the_host() -> Trainer[Any, Any]:
    def step(state: Any, batch: Any) -> Any:
        after, metrics = GOOD.step(state, batch)
        asked = jax.pure_callback(np.asarray, jax.ShapeDtypeStruct((), jnp.float32), metrics["loss"])
        return after, {"loss": asked}

    return GOOD._replace(step=step)


def counts_its_traces() -> Trainer[Any, Any]:
    def change(state: Any) -> Any:
        # Within jax.lax.scan, called outside of jit, the loop's body is the only trace.
        in_scan = isinstance(state.step, jax.core.Tracer) and in_function("_check_scan")
        return state.replace(params={"w": state.params["w"] + 1}) if in_scan else state

    return with_step(change)


def in_function(name: str) -> bool:
    return any(frame.function == name for frame in inspect.stack(context=0))


def momentum(state: Any) -> jax.Array:
    return state.opt_state[0].trace["w"]


def publishes_momentum_unseen() -> Trainer[Any, Any]:
    def publish(state: Any) -> Any:
        traced = isinstance(state.step, jax.core.Tracer)
        return {"w": momentum(state) * 1 if traced else momentum(state)}

    return GOOD._replace(publish=publish)


def keeps_a_view() -> Trainer[Any, Any]:
    views: list[Any] = []

    def publish(state: Any) -> Any:
        if not isinstance(state.step, jax.core.Tracer):
            views.append(np.asarray(momentum(state)))
        return state.params

    return GOOD._replace(publish=publish)


def own_key() -> Trainer[Any, Any]:
    def step(state: Any, batch: Any) -> Any:
        after, metrics = GOOD.step(state.replace(rng_key=jax.random.key(0)), batch)
        return after.replace(rng_key=state.rng_key), metrics

    return GOOD._replace(step=step)


def same_key_each_step() -> Trainer[Any, Any]:
    def step(state: Any, batch: Any) -> Any:
        after, metrics = GOOD.step(state.replace(step=jnp.int32(0)), batch)
        return after.replace(step=state.step + 1), metrics

    return GOOD._replace(step=step)


def publishes_by_turns() -> Trainer[Any, Any]:
    def publish(state: Any) -> Any:
        return {"w": state.params["w"].astype(jnp.float16 if int(state.step) else jnp.float32)}

    return GOOD._replace(publish=publish)


BROKEN_TRAINERS: dict[str, tuple[Callable[[], Trainer[Any, Any]], str]] = {
    "hidden state": (hidden_counter, "step: .*same input gives the same output: .*params.*'w'.* differs in 3 of 3"),
    "identity": (remembers_by_identity, r"step: .*a restored state goes on bit for bit: leaf \[1\]\['place'\]"),
    "changed input": (changes_its_input, r"step: .*its input is not changed: leaf \[0\].params\['w'\] differs"),
    "own donation": (donates_on_its_own, r"step: .*its input is not changed: leaf \[0\].* was deleted"),
    "raises": (lambda: GOOD._replace(teardown=lambda state: state.nothing), "teardown: .*can be called: AttributeErr"),
    "dtype": (
        lambda: with_step(lambda state: state.replace(params={"w": state.params["w"].astype(jnp.float16)})),
        r"step: .*dtypes.* are kept: leaf .params\['w'\]: expected float32\[3\], got float16\[3\]",
    ),
    "weak type": (
        lambda: GOOD._replace(setup=lambda state: state.replace(step=jnp.asarray(0))),
        "setup: .*weak types.* are kept: leaf .step: weak type False became True",
    ),
    "sharding": (
        lambda: GOOD._replace(setup=lambda state: jax.device_put(state, jax.devices()[1])),
        r"setup: .*sharding are kept: leaf .params\['w'\]: expected on",
    ),
    "static fields": (fresh_static_fields, "step: .*same input gives the same output: the structure .* became"),
    "structure": (
        lambda: with_step(lambda state: state.replace(params={**state.params, "b": state.step})),
        r"step: .*structure.* are kept: unexpected .params\['b'\]",
    ),
    "no vmap": (calls_the_host, "step: .*it works under jax.vmap: "),
    "no scan": (counts_its_traces, r"step: .*lax.scan\(f\) == f, f: leaf .params\['w'\] is off"),
    "published and donated": (publishes_momentum_unseen, r"publish: .*outlives the next step: leaf \['w'\] was del"),
    "not donated": (keeps_a_view, r"step: .*donated is written over: leaf .opt_state\[0\].trace\['w'\] is still"),
    "no count": (lambda: with_step(lambda state: state.replace(step=state.step * 3)), "grows by one: .*0 became 3"),
    "first count": (
        lambda: GOOD._replace(init=lambda key, params: GOOD.init(key, params).replace(step=jnp.int32(1))),
        "init: .*starts as an int32 0: leaf .step is Array.1",
    ),
    "first key": (
        lambda: GOOD._replace(init=lambda key, params: GOOD.init(jax.random.key(9), params)),
        "init: .*the key is kept",
    ),
    "consumed key": (
        lambda: with_step(lambda state: state.replace(rng_key=jax.random.split(state.rng_key)[0])),
        "step: .*the key is not consumed: leaf .rng_key",
    ),
    "own key": (own_key, r"step: .*draws comes from `state.rng_key`: another key gives the same"),
    "same key": (same_key_each_step, "step: .*another step draws other numbers: steps 0 to 4 give the same; use"),
    "vector metric": (
        lambda: GOOD._replace(step=lambda state, batch: (GOOD.step(state, batch)[0], {"batch": batch})),
        "step: .*metrics are a dict of scalars: got",
    ),
    "publish names": (
        lambda: GOOD._replace(publishes=("w", "v")),
        r"publish: .*a dict with the models \['w', 'v'\]: got \['w'\]",
    ),
    "publish form": (publishes_by_turns, r"publish: .*its form stays the same: leaf \['w'\]: .*got float16\[3\]"),
    "no trace": (decides_in_python, "step: .*it works under jax.jit: (Concretization|TracerBool|TracerArray)"),
    "jit differs": (lambda: knows_when_it_is_traced("step"), r"step: .*jit\(f\) == f: leaf \[0\].params\['w'\] is off"),
    "setup differs": (lambda: knows_when_it_is_traced("setup"), r"setup: .*jit\(f\) == f: leaf .params\['w'\] is off"),
}


@pytest.mark.parametrize("name", BROKEN_TRAINERS)
def test_broken_trainer_is_caught(name: str) -> None:
    build, match = BROKEN_TRAINERS[name]
    params = {"w": jnp.ones(3)}  # its own: one of them writes to it
    with pytest.raises(ContractError, match=match):
        check_trainer(build(), params, BATCH)
