from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.conditions import condition_html
from pamiq_jax.display import Arrow, Box, drawing, table
from pamiq_jax.flax import linen_trainer
from pamiq_jax.lifecycle import SystemPhase, TrainerPhase, lifecycle_svg
from pamiq_jax.publishing import Snapshot
from pamiq_jax.trainer import guard
from tests.runtime.fakes import World

PARAMS = {"encoder": jnp.zeros((100, 3)), "decoder": jnp.zeros(5)}
TRAINER = pj.gradient_trainer(lambda params, batch, rng_key: (jnp.sum(params["encoder"]), {}), optax.sgd(0.1))


class Counting(pj.TrainerState[Any]):
    count: jax.Array


class Named(pj.TrainerState[Any]):
    def __repr__(self) -> str:
        return "mine"


def test_a_state_is_one_line_whatever_is_in_it() -> None:
    state = TRAINER.init(jax.random.key(0), PARAMS)
    assert repr(state) == "TrainerState(params={encoder: 300, decoder: 5}, opt_state=0, step=0)"
    averaged = pj.ema(TRAINER, 0.9)
    assert repr(averaged.init(jax.random.key(0), PARAMS)).startswith("AveragedState(inner=TrainerState(params={encoder")
    counting = Counting(**vars(state), count=jnp.int32(3))
    assert repr(counting).endswith("step=0, count=3)")
    assert repr(Named(**vars(state))) == "mine"
    assert repr(pj.ring_buffer(4).init(0.0)).startswith("RingState(")


def test_a_population_a_traced_and_a_donated_state_are_printed_too() -> None:
    states = jax.vmap(TRAINER.init, in_axes=(0, None))(jax.random.split(jax.random.key(0), 3), PARAMS)
    assert "step=int32[3]" in repr(states)
    texts: list[str] = []
    jax.eval_shape(lambda state: texts.append(repr(state)), states)
    assert "step=int32[3]" in texts[0]
    state = TRAINER.init(jax.random.key(0), PARAMS)
    state.step.delete()
    assert "step=int32[]" in repr(state)


def test_in_a_notebook_a_state_unfolds_with_what_is_within() -> None:
    averaged = pj.ema(TRAINER, 0.9).init(jax.random.key(0), PARAMS)
    html = averaged._repr_html_()
    assert html is not None
    assert "treescope" in html
    assert TRAINER.init(jax.random.key(0), PARAMS)._repr_html_() is not None  # the guard has been taken away


def test_trainers_and_buffers_say_what_they_are() -> None:
    assert repr(TRAINER) == "Trainer(gradient_trainer)"
    several = pj.gradient_trainer(lambda *_: (0.0, {}), optax.sgd(0.1), trains=("a", "b"), publishes=("a",))
    assert repr(several) == "Trainer(gradient_trainer, trains=('a', 'b'), publishes=('a',))"
    assert repr(pj.ring_buffer(7, placement="host")) == "ring_buffer(capacity=7, placement='host')"
    assert repr(pj.reservoir_buffer(7)) == "reservoir_buffer(capacity=7)"
    assert repr(pj.Buffer(lambda x: x, lambda *_: 0, lambda *_: 0, lambda x: x, 3)) == "Buffer(capacity=3)"


READING = pj.gradient_trainer(lambda *_: (0.0, {}), optax.sgd(0.1), trains=("a",), reads=("b",))
WRAPPED = {
    "ema(gradient_trainer)": pj.ema(TRAINER, 0.9),
    "skip_first(ema(gradient_trainer))": pj.skip_first(pj.ema(TRAINER, 0.9), 1),
    "clip_gradients(ema(gradient_trainer))": pj.clip_gradients(pj.ema(TRAINER, 0.9), 1.0),
    "accumulate_gradients(clip_gradients(gradient_trainer))": pj.accumulate_gradients(
        pj.clip_gradients(TRAINER, 1.0), 2
    ),
    "guard(ema(gradient_trainer))": guard(pj.ema(TRAINER, 0.9)),
    "with_targets(gradient_trainer)": pj.with_targets(READING, {"b": "a"}, decay=0.9),
    "with_hyperparameters(gradient_trainer)": pj.with_hyperparameters(
        lambda rate: pj.gradient_trainer(lambda *_: (0.0, {}), optax.sgd(rate)), rate=0.1
    ),
    "with_optimizers(gradient_trainer)": pj.with_optimizers(TRAINER, {"encoder": optax.adam(0.1)}),
    "alternate(gradient_trainer, gradient_trainer)": pj.alternate(
        *(pj.gradient_trainer(lambda *_: (0.0, {}), optax.sgd(0.1), trains=(name,)) for name in ("encoder", "decoder"))
    ),
    "custom_trainer": pj.custom_trainer(lambda rng_key, params: params, lambda state, batch: (state, {})),
    "trainer_from_step": pj.trainer_from_step(
        lambda params, opt_state, batch: (params, opt_state, 0.0), optax.sgd(0.1)
    ),
    "linen_trainer": linen_trainer(lambda *_: (0.0, ({}, {})), optax.sgd(0.1)),
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_trainer_says_what_made_it_from_the_outside_in(kind: str) -> None:
    assert repr(WRAPPED[kind]).startswith(f"Trainer({kind}")
    assert f"<b>Trainer {kind}</b>" in WRAPPED[kind]._repr_html_()


def texts(html: str) -> list[str]:
    """The texts in HTML that is well formed."""
    root = ElementTree.fromstring(f"<div>{html}</div>".replace("<br>", "<br/>"))
    return [text for text in root.itertext() if text.strip()]


def policy(params: Any, carry: Any, observation: Any, rng_key: Any) -> Any:
    return carry, observation, {}


HOSTILE = "<b>&\"'"
SHOWN: dict[str, tuple[Any, str, list[str]]] = {
    "model": (
        pj.Model({HOSTILE: jnp.zeros((3, 4)), "b": jnp.zeros(3)}, jnp.vdot, infer=False),
        f"Model(params={{{HOSTILE}: 12, b: 3}}, apply=vdot, infer=False)",
        ["Model", "b", "float32[3]", "15 numbers", "infer", "False"],
    ),
    "large": (pj.Model([jnp.zeros(2)] * 99), "Model(params=198)", ["… and 88 more", "198 numbers"]),
    "buffer": (
        pj.ring_buffer(7, example={HOSTILE: 0.0}),
        "ring_buffer(capacity=7)",
        ["Buffer ring_buffer", "capacity", "7", "example"],
    ),
    "condition": (
        pj.min_size(10) & ~pj.min_new(5),
        "min_size(10) & ~min_new(5)",
        ["min_size(10) & ~min_new(5)", "\N{NO-BREAK SPACE}" * 8 + "min_new(5)"],
    ),
    "schedule": (
        pj.Schedule(TRAINER, data=HOSTILE, batch_size=3, steps=4, when=pj.min_new(2)),
        f"Schedule(trainer={TRAINER!r}, data={HOSTILE!r}, batch_size=3, steps=4, when=min_new(2))",
        [HOSTILE, "steps", "4", "min_new(2)"],
    ),
    "agent": (pj.Agent(policy, resets_on=HOSTILE), f"Agent(act=policy, resets_on={HOSTILE!r})", ["policy", HOSTILE]),
    "interaction": (
        pj.Interaction(pj.Agent(policy), World(), interval_seconds=0.05),
        "Interaction(agent=Agent(act=policy), environment=World, interval_seconds=0.05)",
        ["Agent(act=policy)", "World", "0.05"],
    ),
    "snapshot": (
        Snapshot.of({HOSTILE: jnp.zeros((3, 100))}, step=8),
        f"Snapshot(version=0, step=8, params={{{HOSTILE}: 300}}, published_at=0)",
        ["Snapshot", "300 numbers"],
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_each_part_has_a_short_text_and_a_table(name: str) -> None:
    part, text, expected = SHOWN[name]
    assert repr(part) == text
    shown = texts(part._repr_html_())
    assert [each for each in expected if not any(each in line for line in shown)] == []


def test_with_progress_each_part_of_a_condition_has_its_truth_and_the_reason() -> None:
    condition = pj.min_size(10) & ~pj.min_new(5)
    lines = texts(condition_html(condition, pj.Progress(size=12, inserted=12)))
    assert lines[3:6] == [repr(condition), "✗ no", "not: 12 of 5 new records"]
    assert lines[6:9] == ["\N{NO-BREAK SPACE}" * 4 + "min_size(10)", "✓ holds", "has 12 of 10 records"]


def test_a_run_its_status_and_its_moments_are_drawn() -> None:
    trainer = pj.gradient_trainer(lambda params, x, key: (jnp.mean((params["m"] - x) ** 2), {}), optax.sgd(0.1))
    schedule = pj.Schedule(trainer, data="x", batch_size=4, when=pj.min_new(2) & pj.min_size(1))
    models, buffers = {"m": pj.Model(jnp.zeros(()))}, {"x": pj.ring_buffer(9, example=0.0)}
    with pj.launch(pj.System(models, buffers, {HOSTILE: schedule}), history=3) as run:
        for number in (1.0, 3.0):
            run.collect("x", number)
        run.wait_for_version(1, timeout=60)
        run.pause()
        of_run, of_status, of_moment = (texts(each._repr_html_()) for each in (run, run.status, run.history[-1]))
        assert {HOSTILE, "paused", "2 of 9"} < set(of_status)
        assert {"min_new(2) & min_size(1)", "✗ no", "✓ holds"} <= set(of_run)
        assert set(of_status) < set(of_run)
        assert {HOSTILE, "Moment", "1", "float32[]"} <= set(of_moment)


@pytest.mark.parametrize("phase", [*TrainerPhase, *SystemPhase], ids=repr)
def test_every_phase_has_its_picture_with_it_marked(phase: TrainerPhase | SystemPhase) -> None:
    root = ElementTree.fromstring(lifecycle_svg(phase))
    boxes = [element for element in root.iter() if element.tag.endswith("rect")]
    assert len(boxes) == len(type(phase))
    assert sum(box.get("fill") not in ("#f3f4f6",) for box in boxes) == 1
    words = "".join(root.itertext())
    assert phase.value.replace("_", " ") in words


def test_what_is_drawn_lies_within_the_picture_and_is_escaped() -> None:
    svg = drawing({"a": Box("<a>\nmore", 60, 40), "b": Box("b", 300, 140)}, [Arrow("a", "b", "<&>")], "a & b")
    root = ElementTree.fromstring(svg)
    _, _, width, height = map(float, root.get("viewBox", "").split())
    assert width >= 300 + 35
    assert height >= 140 + 17
    assert "<a>" in list(root.itertext())
    assert table(["x"], [["<y>"]]).count("&lt;y&gt;") == 1
