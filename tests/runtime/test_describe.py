from __future__ import annotations

import html
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax import trees
from pamiq_jax.display import WRONG
from pamiq_jax.errors import InvalidValueError, PamiqError, UnknownNameError
from pamiq_jax.runtime.wiring import Wiring, wiring
from tests.runtime.fakes import fed_system, learner, learning_system

BUFFERS = {
    "seen": pj.ring_buffer(64),
    "far": pj.reservoir_buffer(50, placement="host", example=np.zeros(3, np.float32)),
    "urgent": pj.prioritized_buffer(32, example=0.0),
}


def test_bytes_are_those_of_the_compiled_system() -> None:
    system = learning_system(
        buffers=BUFFERS,
        trainers={},
        interaction=pj.Interaction(
            learning_system().interactions["agent"].agent,
            learning_system().interactions["agent"].environment,
            collect={"seen": lambda record: record},
        ),
    )
    lines = str(system.describe()).splitlines()
    compiled = pj.compile_system(system)
    total = 0
    for name, line in zip(BUFFERS, lines, strict=False):
        state = trees.nbytes(compiled.learner.buffers[name].state)
        queue = compiled.cells().collectors[name].nbytes
        total += state + queue
        assert line.startswith(f"buffer {name!r}: {BUFFERS[name].capacity} records of ")
        assert [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) bytes", line)] == [state, queue]
    assert "['observation'] float32[3], ['reward'] float32[]" in lines[0]
    assert " on the host, queue " in lines[1]
    assert system.describe().lines[-1].startswith(f"buffers and queues take {total:,} bytes")


def test_says_what_trainers_do_and_what_models_take() -> None:
    schedule = pj.Schedule(learner(), data="x", batch_size=4, steps=4, steps_per_chunk=2, when=pj.min_new(3))
    models = {
        "policy": pj.Model(jnp.zeros(3), dtype=jnp.bfloat16),
        "hidden": pj.Model(np.zeros(2, np.float32), infer=False),
    }
    buffers = {"x": pj.ring_buffer(100, placement="host", example=0.0)}
    text = str(fed_system(schedule, models=models, buffers=buffers).describe())
    assert text.splitlines()[1:4] == [
        "model 'policy': 12 bytes (12 B), published 6 bytes (6 B)",
        "model 'hidden': 8 bytes (8 B), not published",
        "trainer 'fit': trains 'policy', reads nothing, publishes 'policy'; "
        "4 steps a run, batches of 4 from 'x' when min_new(3); "
        "a chunk's batches take 32 bytes (32 B), twice while one is gathered ahead",
    ]


def test_a_buffer_that_nothing_feeds() -> None:
    system = fed_system(buffers={"x": pj.ring_buffer(8)})
    with pytest.raises(InvalidValueError, match="buffer 'x' example is None, expected one record"):
        system.describe()


def test_the_wiring_says_who_gives_what_to_whom_and_draws_it() -> None:
    system = learning_system()
    assert repr(system) == "System(models=[policy], buffers=[seen], trainers=[fit], interactions=[agent])"
    wiring = system.describe().wiring
    assert str(wiring).splitlines() == [
        "interaction 'agent' -> buffer 'seen' (collects)",
        "buffer 'seen' -> trainer 'fit' (4 a batch)",
        "trainer 'fit' -> model 'policy' (trains and publishes)",
        "model 'policy' -> interaction 'agent' (acts with)",
    ]
    boxes = [element for element in ElementTree.fromstring(wiring.svg()).iter() if element.tag.endswith("rect")]
    assert len(boxes) == 4
    assert system._repr_html_().startswith("<svg")
    assert 'model3 -.->|"acts with"| interaction0' in wiring.mermaid()
    assert "interaction 'agent': as fast as it can, may act with 'policy', feeds 'seen'" in str(system.describe())


def test_what_is_seldom_meant_is_noted() -> None:
    models = {name: pj.Model(jnp.zeros(3), infer=name == "policy") for name in ("policy", "idle")}
    schedule = pj.Schedule(learner(), data="x", batch_size=4)
    system = fed_system(schedule, models=models, buffers={name: pj.ring_buffer(8, example=0.0) for name in "xy"})
    assert [note.partition(";")[0] for note in wiring(system).notes] == [
        "no interaction feeds buffer 'x': it gets what run.collect brings",
        "no trainer draws from buffer 'y'",
        "no interaction feeds buffer 'y': it gets what run.collect brings",
        "no trainer trains model 'idle'",
    ]


def test_a_mistake_is_shown_in_the_wiring() -> None:
    schedule = pj.Schedule(learner("nobody"), data="nothing", batch_size=4)
    with pytest.raises(UnknownNameError, match="'nothing'") as caught:
        learning_system(trainers={"fit": schedule})
    (note,) = caught.value.__notes__
    assert "buffer 'nothing' -> trainer 'fit' (4 a batch)" in note
    assert "✗ buffer 'nothing' does not exist\n✗ model 'nobody' does not exist" in note


def refused(**parts: Any) -> Wiring:
    with pytest.raises(PamiqError) as caught:
        pj.System(**({"models": {"m": pj.Model(jnp.zeros(3))}, "buffers": {"x": pj.ring_buffer(8)}} | parts))
    return caught.value.wiring


def schedule(trains: str = "m", data: str = "x", **options: Any) -> pj.Schedule:
    return pj.Schedule(learner(trains), data=data, **({"batch_size": 4} | options))


def red_boxes(wiring: Wiring) -> list[bool]:
    """Whether each box with a red border is dashed."""
    boxes = [box for box in ElementTree.fromstring(wiring.svg()).iter() if box.get("stroke") == WRONG]
    return [box.get("stroke-dasharray") is not None for box in boxes]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"trainers": {"fit": schedule(data="y")}}, [("fit", False), ("y", True)]),
        ({"trainers": {"fit": schedule(trains="n")}}, [("fit", False), ("n", True)]),
        ({"trainers": {"fit": schedule(after=("first",))}}, [("fit", False), ("first", True)]),
        ({"queues": {"y": pj.Queue()}}, [("y", True)]),
        ({"trainers": {"fit": schedule(when=pj.min_size(9))}}, [("fit", False)]),
        (
            {"trainers": {"fit": schedule()}, "models": {"m": pj.Model(0.0, train=False)}},
            [("fit", False), ("m", False)],
        ),
        ({"trainers": {"a": schedule(after=("b",)), "b": schedule(after=("a",))}}, [("a", False), ("b", False)]),
    ],
)
def test_a_refused_system_is_drawn_with_the_mistake_marked(
    parts: dict[str, Any], expected: list[tuple[str, bool]]
) -> None:
    drawn = refused(**parts)
    assert [(part.name, part in drawn.unknown) for part in drawn.wrong] == expected
    assert sorted(red_boxes(drawn)) == sorted(dashed for _, dashed in expected)
    assert drawn.mermaid().count("stroke:#b91c1c") == len(expected)
    assert drawn.mermaid().count("stroke-dasharray") == sum(dashed for _, dashed in expected)
    assert f"<b>✗</b> {html.escape(drawn.mistake)}</p>" in drawn._repr_html_()


def test_what_is_no_system_at_all_is_refused_without_a_drawing() -> None:
    with pytest.raises(InvalidValueError, match=r"System\(models\) is 'list'") as caught:
        pj.System([1])  # pyright: ignore[reportArgumentType]
    assert caught.value.wiring is None


def test_names_are_escaped_wherever_they_are_drawn() -> None:
    names = ['t"x', "b&<b>", "<script>alert(1)</script>", "`md`", "a#b"]
    system = pj.System({name: pj.Model(jnp.zeros(3), train=False) for name in names})
    text = wiring(system).mermaid()
    assert [line.count('"') for line in text.splitlines() if "[" in line] == [2] * len(names)
    assert text.count("<") == text.count("<br/>") == len(names)
    assert "t#34;x<br/>3 numbers" in text
    assert "b#38;#60;b#62;" in text
    assert "a#35;b" in text
    root = ElementTree.fromstring(wiring(system).svg())
    assert {element.text for element in root.iter()} >= set(names)
    assert "<script>" not in system._repr_html_()
