"""What is given wrongly is refused where it is built, with what it is, what is expected and what to do: a row each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax import conditions, data
from pamiq_jax.errors import InvalidValueError, PamiqError, PublishMismatchError, StepStructureError, UnknownNameError
from pamiq_jax.trainer import guard
from tests.runtime.fakes import AGENT, World

loose: Any = pj  # wrong types are what this is about
RING = pj.ring_buffer(4, example=0.0)
KEY = jax.random.key(0)


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
    return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(params)), {}


WHOLE: Any = pj.gradient_trainer(loss_fn, optax.sgd(0.1))
OF_M: Any = pj.gradient_trainer(loss_fn, optax.sgd(0.1), trains=("m",))
READER: Any = pj.gradient_trainer(loss_fn, optax.sgd(0.1), trains=("m",), reads=("t",))


def schedule(trainer: Any = OF_M, **changes: Any) -> pj.Schedule:
    return pj.Schedule(**{"trainer": trainer, "data": "x", "batch_size": 1, **changes})


def system(trainer: Any = OF_M, **changes: Any) -> pj.System:
    parts = {"models": {"m": pj.Model(jnp.zeros(2))}, "buffers": {"x": RING}, "trainers": {"t": schedule(trainer)}}
    return pj.System(**{**parts, **changes})


def interaction(agent: Any = AGENT, environment: Any = None, **changes: Any) -> pj.Interaction:
    return pj.Interaction(agent, World() if environment is None else environment, **changes)


class Blind:
    spec = World.spec

    def reset(self, seed: int) -> None: ...

    def affect(self, action: Any) -> Any: ...


def two(argument: Any) -> dict[str, Any]:
    return {"m": jnp.zeros(2), "t": argument}


type Row = tuple[Callable[[], Any], type[PamiqError], str]

SYSTEMS: list[Row] = [
    (lambda: schedule(data={}), InvalidValueError, r"Schedule\(data\) is \{\}, expected a buffer's name, or a dict.*;"),
    (lambda: schedule(data=["x"]), InvalidValueError, r"Schedule\(data\) is \['x'\], .*; write data=\"x\" for one"),
    (lambda: interaction(loose.Agent(None)), InvalidValueError, r"Agent\(act\) is None, expected \(params, carry, "),
    (
        lambda: interaction(AGENT._replace(init=3)),
        InvalidValueError,
        r"Agent\(init\) is 3, expected \(rng_key\) -> carry",
    ),
    (lambda: loose.custom_trainer(None, None), InvalidValueError, r"custom_trainer\(init\) is None, expected"),
    (lambda: loose.custom_trainer(loss_fn, 3), InvalidValueError, r"custom_trainer\(step\) is 3, expected"),
    (
        lambda: pj.gradient_trainer(loss_fn, optax.sgd(0.1), trains=("m", "m")),
        InvalidValueError,
        "each once; name each",
    ),
    (lambda: loose.launch(None), InvalidValueError, r"launch\(system\) is None, expected a System; build one"),
    (lambda: loose.run_lockstep(3, 1), InvalidValueError, r"run_lockstep\(system\) is 'int', expected a System"),
    (lambda: schedule(data=None), InvalidValueError, r"Schedule\(data\) is None, expected a buffer's name"),
    (lambda: schedule(data=""), InvalidValueError, r"Schedule\(data\) is '', expected a buffer's name"),
    (lambda: schedule(data={"": "x"}), InvalidValueError, r"Schedule\(data\) is \{'': 'x'\}, expected"),
    (lambda: schedule(data={"a": 3}), InvalidValueError, r"Schedule\(data\) is \{'a': 3\}, expected"),
    (lambda: schedule(trainer=OF_M.step), InvalidValueError, r"Schedule\(trainer\) is 'function', expected a Trainer"),
    (
        lambda: schedule(prepare="a"),
        InvalidValueError,
        r"Schedule\(prepare\) is 'a', expected \(Record\) -> batch or N",
    ),
    (lambda: schedule(on_paused="a"), InvalidValueError, r"Schedule\(on_paused\) is 'a', expected a function or None"),
    (lambda: schedule(on_resumed=1), InvalidValueError, r"Schedule\(on_resumed\) is 1, expected a function or None"),
    (lambda: schedule(group=""), InvalidValueError, r"Schedule\(group\) is '', expected a name"),
    (
        lambda: schedule(after=("",)),
        InvalidValueError,
        r"Schedule\(after\) is '', expected a trainer name of one letter",
    ),
    (lambda: schedule(when=pj.always), InvalidValueError, r"is <function always.*a condition.*; call it: always\("),
    (lambda: schedule(when=pj.min_new), InvalidValueError, r"; call it: min_new\("),
    (lambda: schedule(when=pj.samples_per_insert), InvalidValueError, r"; call it: samples_per_insert\("),
    (lambda: schedule(when=lambda now: True), InvalidValueError, r"expected a callable that takes \(now, last\); take"),
    (lambda: schedule(when=3), InvalidValueError, r"when\(function\) is 3, expected a callable \(now, last\) -> bool;"),
    (
        lambda: system(interaction={"a": 3}),
        InvalidValueError,
        r"System\(interaction\) 'a' is 'int', expected an Interact",
    ),
    (
        lambda: system(interaction=3),
        InvalidValueError,
        r"System\(interaction\) is 'int', expected an Interaction, or a",
    ),
    (
        lambda: system(interaction={1: interaction()}),
        InvalidValueError,
        r"System\(interaction\) is \[1\], expected a tup",
    ),
    (
        lambda: system(interaction={"": interaction()}),
        InvalidValueError,
        r"System\(interaction\) is '', expected a part n",
    ),
    (
        lambda: system(models={"": pj.Model(0.0)}),
        InvalidValueError,
        r"System\(models\) is '', expected .*; give it one",
    ),
    (lambda: system(buffers={"": RING}), InvalidValueError, r"System\(buffers\) is '', expected"),
    (lambda: system(trainers={"": schedule()}), InvalidValueError, r"System\(trainers\) is '', expected"),
    (
        lambda: interaction(environment=3),
        InvalidValueError,
        r"is 'int without spec, reset, .*, expected an object with `s",
    ),
    (
        lambda: loose.Interaction(AGENT, None),
        InvalidValueError,
        r"is 'NoneType without spec, .*; see Environment",
    ),
    (lambda: interaction(environment=Blind()), InvalidValueError, r"\(environment\) is 'Blind without observe, close'"),
    (lambda: interaction(environment=World), InvalidValueError, r"; make one of the class: World\(\.\.\.\)"),
    (
        lambda: interaction(fallback="a", interval_seconds=1),
        InvalidValueError,
        r"Interaction\(fallback\) is 'a', expected",
    ),
    (
        lambda: interaction(on_paused="a"),
        InvalidValueError,
        r"Interaction\(on_paused\) is 'a', expected a function or N",
    ),
    (lambda: interaction(collect=["x"]), InvalidValueError, r"Interaction\(collect\) is 'list', expected a dict"),
    (
        lambda: interaction(collect={"x": "y"}),
        InvalidValueError,
        r"collect\) of buffer 'x' is 'y', expected \(record\)",
    ),
    (lambda: loose.Model(0.0, infer="no"), InvalidValueError, r"Model\(infer\) is 'no', expected True or False"),
    (lambda: loose.Model(0.0, train=1), InvalidValueError, r"Model\(train\) is 1, expected True or False"),
    (lambda: loose.Model(0.0, "f"), InvalidValueError, r"Model\(apply\) is 'f', expected a function"),
    (
        lambda: system(pj.gradient_trainer(loss_fn, optax.sgd(0.1), trains=())),
        InvalidValueError,
        r"what trainer 't' can train of the models is \{'m': 'train=True'\}, expected one at least.*; name a model",
    ),
    (
        lambda: system(WHOLE, models={"m": pj.Model(0.0, train=False)}),
        InvalidValueError,
        r"what trainer 't' can train of the models is \{'m': 'train=False'\}.* or give the system one with train=True",
    ),
]

TRAINERS: list[Row] = [
    (
        lambda: loose.gradient_trainer(None, optax.sgd(1)),
        InvalidValueError,
        r"\(loss_fn\) is None, expected \(par",
    ),
    (
        lambda: loose.gradient_trainer(loss_fn, "sgd"),
        InvalidValueError,
        r"trainer\(tx\) is 'sgd', expected an opt",
    ),
    (lambda: alternate("ab"), InvalidValueError, r"alternate\(turns\) is 'ab', expected 2 integers of at least 1"),
    (lambda: alternate((1, 2.5)), InvalidValueError, r"alternate\(turns\) is 2.5, expected an integer from 1"),
    (lambda: alternate((1, True)), InvalidValueError, r"alternate\(turns\) is True, expected an integer from 1"),
    (lambda: alternate((0, 1)), InvalidValueError, r"alternate\(turns\) is 0, expected an integer from 1"),
    (lambda: alternate((1,)), InvalidValueError, r"alternate\(turns\) is \(1,\), expected 2 integers"),
    (
        lambda: loose.ema(OF_M, "0.9"),
        InvalidValueError,
        r"ema\(decay\) is '0.9', expected a number in \[0, 1\);",
    ),
    (lambda: loose.ema(OF_M, 0.9, models="m"), InvalidValueError, r"ema\(models\) is 'm', .*; write \('m',\)"),
    (
        lambda: loose.ema(OF_M, 0.9, models=("zz",)),
        UnknownNameError,
        r"ema\(models\): no trained model is named 'zz'; known",
    ),
    (
        lambda: loose.ema(WHOLE, 0.9, models=("zz",)).init(KEY, {"m": jnp.zeros(2)}),
        UnknownNameError,
        r"ema\(models\): no trained model is named 'zz'; known: 'm'",
    ),
    (
        lambda: loose.clip_gradients(OF_M, "1"),
        InvalidValueError,
        r"max_norm\) is '1', expected more than 0; float",
    ),
    (
        lambda: loose.with_optimizers(OF_M, {"m": "adam"}),
        InvalidValueError,
        r"group 'm' is 'adam', expected an op",
    ),
    (lambda: loose.with_optimizers(OF_M, "m"), InvalidValueError, r"\(by_group\) is 'm', expected a dict"),
    (
        lambda: loose.with_optimizers(OF_M, {"m": optax.sgd(1)}, labels="m"),
        InvalidValueError,
        r"with_optimizers\(labels\) is 'm', expected \(params\) -> names of groups or None",
    ),
    *(
        (
            lambda params=params: pj.Model(params),
            InvalidValueError,
            r"Model\(params\) is .*, expected one array or more; a",
        )
        for params in ({}, (), None, {"w": {}})
    ),
    *(
        (build, InvalidValueError, r"Schedule\(when\) is {}, expected a condition, or a dict of one or more; write")
        for build in (lambda: schedule(when={}), lambda: schedule(when={}, data={"a": "x"}))
    ),
    (
        lambda: pj.with_targets(READER, {}, 0.9),
        InvalidValueError,
        r"with_targets\(targets\) is {}, expected one target or more; write {target: source}, or leave",
    ),
    (
        lambda: loose.with_targets(READER, ("t", "m"), 0.9),
        InvalidValueError,
        r"\(targets\) is .*expected a dict",
    ),
    (
        lambda: loose.with_targets(READER, {"t": "m"}, 0.9).init(KEY, two({"w": jnp.zeros(2)})),
        InvalidValueError,
        r"target 't' is .*\['w'\].*, expected the form of its source 'm'; initialize it like 'm', or leave it out",
    ),
    (
        lambda: loose.with_targets(READER, {"t": "m"}, 0.9).init(KEY, two(jnp.zeros(3))),
        InvalidValueError,
        r"target 't' is 'leaf the tree itself: expected float32\[2\], got float32\[3\]'",
    ),
    (
        lambda: pj.custom_trainer(OF_M.init, OF_M.step, trains=("m",), publishes=("n",)),
        UnknownNameError,
        r"custom_trainer\(publishes\): no trained model is named 'n'; known: 'm'; give a `publish` that returns it",
    ),
    (
        lambda: WHOLE.init(KEY, {"w": jnp.zeros(2), "count": jnp.int32(0)}),
        InvalidValueError,
        r"trained parameter \['count'\] is 'int32', expected a float, .*; make it a float, or keep it out: in a mod",
    ),
    (
        lambda: WHOLE.init(KEY, {"w": KEY}),
        InvalidValueError,
        r"trained parameter \['w'\] is 'key<fry>', expected a float",
    ),
    *(
        (combine, InvalidValueError, r"\(trainer\) is 'a', expected a Trainer; make one with gradient_trainer")
        for combine in (
            lambda: loose.skip_first("a", 1),
            lambda: loose.ema("a", 0.9),
            lambda: guard("a"),
            lambda: loose.alternate(OF_M, "a"),
            lambda: loose.clip_gradients("a", 1.0),
            lambda: loose.accumulate_gradients("a", 2),
            lambda: loose.with_optimizers("a", {"m": optax.sgd(1)}),
            lambda: loose.with_targets("a", {}, 0.9),
        )
    ),
]


def alternate(turns: Any) -> Any:
    other = pj.gradient_trainer(loss_fn, optax.sgd(0.1), trains=("other",))
    return pj.alternate(OF_M, other, turns=turns)


def reservoir(**arguments: Any) -> Any:
    return data.reservoir_buffer(10, **arguments)


def prioritized(**arguments: Any) -> Any:
    return data.prioritized_buffer(10, **arguments)


def sequence(**arguments: Any) -> Any:
    return data.sequence_buffer(10, window=2, **arguments)


def mixed(*arguments: Any) -> Any:
    return data.mixed_buffer(*arguments)


BUFFERS: list[Row] = [
    (lambda: reservoir(expected_survival_length="50"), InvalidValueError, r"length\) is '50', expected at least 29.*;"),
    (lambda: reservoir(replace_probability="1"), InvalidValueError, r"probability\) is '1', expected more than 0 and"),
    (lambda: reservoir(seed="a"), InvalidValueError, r"reservoir_buffer\(seed\) is 'a', expected an integer from 0"),
    (
        lambda: prioritized(alpha="1"),
        InvalidValueError,
        r"prioritized_buffer\(alpha\) is '1', expected a finite number",
    ),
    (lambda: prioritized(beta=None), InvalidValueError, r"prioritized_buffer\(beta\) is None, expected 0 to 1"),
    (lambda: mixed([RING], ["1"]), InvalidValueError, r"mixed_buffer\(weights\) is \['1'\], expected positive numbers"),
    (
        lambda: mixed(["a", "b"], [1, 1]),
        InvalidValueError,
        r"mixed_buffer\(buffers\) number 0 is 'a', expected a Buffer",
    ),
    (
        lambda: sequence(starts_segment="done"),
        InvalidValueError,
        r"starts_segment\) is 'done', .*lambda data: data\['do",
    ),
    (
        lambda: sequence(ends_segment=1),
        InvalidValueError,
        r"sequence_buffer\(ends_segment\) is 1, expected \(data\) -> b",
    ),
]


def condition(name: str, *arguments: Any, **keywords: Any) -> Callable[[], Any]:
    return lambda: getattr(conditions, name)(*arguments, **keywords)


CONDITIONS: list[Row] = [
    (condition("max_duty", "a"), InvalidValueError, r"max_duty\(fraction\) is 'a', expected a number from 0.001 to 1"),
    (condition("max_duty", None), InvalidValueError, r"max_duty\(fraction\) is None, expected a number"),
    (condition("max_duty", np.ones(2)), InvalidValueError, r"max_duty\(fraction\) is array.*expected a number"),
    (condition("fresh", "a"), InvalidValueError, r"fresh\(max_age_seconds\) is 'a', expected a number from 0.001"),
    (condition("samples_per_insert", "a"), InvalidValueError, r"samples_per_insert\(ratio\) is 'a', expected a number"),
    (condition("samples_per_insert", 1, "a"), InvalidValueError, r"\(tolerance\) is 'a', expected an integer"),
    (condition("samples_per_insert", 1, max_debt=0.5), InvalidValueError, r"\(max_debt\) is 0.5, expected an integer"),
    (condition("time_of_day", "8", 20), InvalidValueError, r"time_of_day\(start_hour\) is '8', expected a number"),
    (condition("time_of_day", 8, None), InvalidValueError, r"time_of_day\(end_hour\) is None, expected a number"),
    (condition("min_size", "a"), InvalidValueError, r"min_size\(minimum\) is 'a', expected an integer"),
    (condition("min_new", 1.5), InvalidValueError, r"min_new\(minimum\) is 1.5, expected an integer"),
    (condition("every_versions", "a"), InvalidValueError, r"every_versions\(number\) is 'a', expected an integer"),
]


ROWS = SYSTEMS + TRAINERS + BUFFERS + CONDITIONS


@pytest.mark.parametrize(("build", "error", "message"), ROWS, ids=map(str, range(len(ROWS))))
def test_it_is_refused(build: Callable[[], Any], error: type[PamiqError], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


def test_what_is_right_stays_so() -> None:
    def ready(now: Any, last: Any, least: int = 3) -> bool:
        return now.size > least

    assert schedule(when=ready, data={"a": "x"}, prepare=lambda record: record.data).sources["a"].buffer == "x"
    assert schedule(when=lambda *progress: True).sources[""].condition is not None
    assert loose.Model(0.0, infer=np.bool_(False)).train
    assert data.reservoir_buffer(10, expected_survival_length=np.float32(50)).capacity == 10
    assert loose.ema(OF_M, np.float32(0.9)) is not None
    assert pj.clip_gradients(OF_M, jnp.float32(1)) is not None


def test_the_published_form_of_a_target_is_that_of_its_model() -> None:
    trainer = pj.with_targets(READER, {"t": "m"}, 0.9, publishes=("t",))
    refused = system(trainer, models={"m": pj.Model(jnp.zeros(2)), "t": pj.Model(jnp.zeros(3))})
    with pytest.raises(
        PublishMismatchError, match=r"publishes model 't' in another form: .*float32\[3\], got float32\[2"
    ):
        pj.compile_system(refused)


def test_a_buffer_whose_add_changes_the_form_of_its_state_is_named() -> None:
    def add(state: Any, records: Any, count: Any) -> Any:
        return RING.add(state, records, count).replace(head=jnp.float32(0))

    with pytest.raises(
        StepStructureError, match=r"`add` of buffer 'x' returned .* leaf \.head: expected int32\[\], got fl"
    ):
        pj.compile_system(system(buffers={"x": RING._replace(add=add)}))
