from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.display import Arrow, Box, drawing, table
from pamiq_jax.lifecycle import SystemPhase, TrainerPhase, lifecycle_svg

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
    assert repr(TRAINER) == "Trainer()"
    several = pj.gradient_trainer(lambda *_: (0.0, {}), optax.sgd(0.1), trains=("a", "b"), publishes=("a",))
    assert repr(several) == "Trainer(trains=('a', 'b'), publishes=('a',))"
    assert repr(pj.ring_buffer(7, placement="host")) == "ring_buffer(capacity=7, placement='host')"
    assert repr(pj.reservoir_buffer(7)) == "reservoir_buffer(capacity=7)"
    assert repr(pj.Buffer(lambda x: x, lambda *_: 0, lambda *_: 0, lambda x: x, 3)) == "Buffer(capacity=3)"


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
