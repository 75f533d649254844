"""Who feeds, reads, trains and publishes what in a system, as text and as a diagram, also where a mistake is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, override

from pamiq_jax.display import ALARM, EDGE, PAPER, WRONG, Arrow, Box, drawing, escape, numbers
from pamiq_jax.errors import UnknownNameError

if TYPE_CHECKING:
    from pamiq_jax.runtime.interaction import Interaction
    from pamiq_jax.runtime.system import Schedule, System

_KINDS = ("interaction", "buffer", "trainer", "model")
_FILLS = {"interaction": "#dbeafe", "buffer": PAPER, "trainer": "#dcfce7", "model": "#fef3c7"}
_GAP, _ROW = 130, 78


class Part(NamedTuple):
    """Something that has a name in a system.

    Attributes:
        kind: "interaction", "buffer", "trainer" or "model".
        name: its name.
    """

    kind: str
    name: str

    @override
    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}"


class Wire(NamedTuple):
    """What goes from one part of a system to another.

    Attributes:
        source: where from.
        target: where to.
        label: how.
    """

    source: Part
    target: Part
    label: str

    @property
    def is_look(self) -> bool:
        """Whether the target only looks at a model."""
        return self.source.kind == "model"


class Wiring(NamedTuple):
    """How the parts of a system hang together. Print it; a notebook shows it as a diagram.

    Attributes:
        parts: a few words on each.
        wires: between them.
        unknown: parts that are named and do not exist.
        notes: what is allowed and seldom meant.
        wrong: parts that the mistake is about, where the system was refused.
        mistake: what is wrong with them; "" if nothing is.
    """

    parts: Mapping[Part, str]
    wires: tuple[Wire, ...]
    unknown: tuple[Part, ...]
    notes: tuple[str, ...]
    wrong: tuple[Part, ...] = ()
    mistake: str = ""

    @override
    def __str__(self) -> str:
        lines = [f"{wire.source} -> {wire.target} ({wire.label})" for wire in self.wires]
        lines += [f"✗ {part} does not exist" for part in self.unknown]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def html(self) -> str:
        """Return the diagram with the mistake and the notes below it."""
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        mistake = f"<p><b>✗</b> {escape(self.mistake)}</p>" if self.mistake else ""
        return self.svg() + mistake + (f"<ul>{notes}</ul>" if notes else "")

    def _repr_html_(self) -> str:
        return self.html()

    def mermaid(self) -> str:
        """Return the text of a Mermaid flowchart."""
        names = {part: f"{part.kind}{number}" for number, part in enumerate([*self.parts, *self.unknown])}
        lines = [f'{name}["{_text(part.name)}<br/>{_text(self._words(part))}"]' for part, name in names.items()]
        for wire in self.wires:
            arrow = "-.->" if wire.is_look else "-->"
            lines.append(f'{names[wire.source]} {arrow}|"{_text(wire.label)}"| {names[wire.target]}')
        lines += [f"style {names[part]} stroke:{WRONG}" for part in self.wrong if part not in self.unknown]
        missing = f"fill:{ALARM},stroke:{WRONG},stroke-dasharray:5 4"
        lines += [f"style {names[part]} {missing}" for part in self.unknown]
        return "flowchart LR\n" + "".join(f"    {line}\n" for line in lines)

    def svg(self) -> str:
        """Return the diagram as an SVG: interactions, buffers, trainers and models from left to right."""
        boxes: dict[str, Box] = {}
        left = 20.0
        for kind in _KINDS:
            column = [part for part in [*self.parts, *self.unknown] if part.kind == kind]
            labels = [f"{part.name}\n{self._words(part)}" for part in column]
            width = max((Box(label, 0, 0).width for label in labels), default=0.0)
            for row, (part, label) in enumerate(zip(column, labels, strict=True)):
                boxes[str(part)] = self._box(part, label, left + width / 2, 50 + _ROW * row)
            left += width + _GAP * bool(column)
        lowest = max((box.y for box in boxes.values()), default=0.0)
        arrows = [self._arrow(wire, boxes, lowest) for wire in self.wires]
        missing = ", ".join(f"{part} does not exist" for part in self.unknown)
        return drawing(boxes, arrows, missing or "interactions, buffers, trainers, models; dashed: acts with, or reads")

    def _box(self, part: Part, label: str, x: float, y: float) -> Box:
        if part in self.unknown:
            return Box(label, x, y, ALARM, WRONG, is_dashed=True)
        return Box(label, x, y, _FILLS[part.kind], WRONG if part in self.wrong else EDGE)

    def _arrow(self, wire: Wire, boxes: Mapping[str, Box], lowest: float) -> Arrow:
        source, target = boxes[str(wire.source)], boxes[str(wire.target)]
        bend = 0.0
        if wire.target.kind == "interaction":  # below all that lies between
            bend = 2 * (lowest + 70 - (source.y + target.y) / 2)
        elif wire.is_look:
            bend = 30.0
        label = "" if wire.is_look else wire.label  # the caption says it
        return Arrow(str(wire.source), str(wire.target), label, bend, wire.is_look)

    def _words(self, part: Part) -> str:
        return "does not exist" if part in self.unknown else self.parts[part]


def _text(words: str) -> str:
    """Return text as a Mermaid label in quotes takes it: what would end or format it is written as a number."""
    return "".join(f"#{ord(letter)};" if letter in '"#&<>`\n' else letter for letter in words)


def wiring(system: System, mistake: Exception | None = None) -> Wiring:
    """Return how the parts of a system hang together, whether they fit or not. Nothing is compiled.

    Args:
        system: the system, or what was to become one.
        mistake: why it was refused. The parts that it names are marked, and the order of trainers is drawn too.
    """
    parts = dict(_parts(system))
    wires = tuple(_wires(system))
    if mistake is not None:
        wires += tuple(_order(system))
    ends = [end for wire in wires for end in (wire.source, wire.target)]
    if isinstance(mistake, UnknownNameError) and mistake.kind in _KINDS:
        ends.append(Part(mistake.kind, str(mistake.unknown_name)))
    unknown = tuple(dict.fromkeys(end for end in ends if end not in parts))
    if mistake is None:
        return Wiring(parts, wires, unknown, tuple(_notes(system, wires)) if not unknown else ())
    text = str(mistake)
    wrong = tuple(part for part in [*parts, *unknown] if str(part) in text or part in unknown)
    return Wiring(parts, wires, unknown, (), wrong, text)


def _order(system: System) -> Iterator[Wire]:
    for name, schedule in system.trainers.items():
        for other in schedule.after:
            yield Wire(Part("trainer", other), Part("trainer", name), "goes first")


def _parts(system: System) -> Iterator[tuple[Part, str]]:
    for name, interaction in system.interactions.items():
        yield Part("interaction", name), pace(interaction)
    for name, buffer in system.buffers.items():
        yield Part("buffer", name), repr(buffer)
    for name, schedule in system.trainers.items():
        yield Part("trainer", name), _when(schedule)
    for name, model in system.models.items():
        state = [word for word, holds in (("frozen", not model.train), ("not published", not model.infer)) if holds]
        yield Part("model", name), ", ".join([f"{numbers(model.params):,} numbers", *state])


def pace(interaction: Interaction) -> str:
    """Return in words how often an interaction acts.

    Args:
        interaction: of a system.
    """
    every = interaction.interval_seconds
    return "as fast as it can" if every is None else f"every {every:g} s"


def _when(schedule: Schedule) -> str:
    conditions = " and ".join(repr(source.condition) for source in schedule.sources.values())
    text = f"{schedule.steps} steps when {conditions}"
    return text if len(text) <= 44 else text[:43] + "…"


def _wires(system: System) -> Iterator[Wire]:
    for name in system.interactions:
        for buffer in system.collects(name):
            yield Wire(Part("interaction", name), Part("buffer", buffer), "collects")
    for name, schedule in system.trainers.items():
        trainer = Part("trainer", name)
        for source in schedule.sources.values():
            yield Wire(Part("buffer", source.buffer), trainer, f"{source.batch_size} a batch")
        trained = system.trained_by(name)
        publishes = trained if schedule.trainer.publishes is None else schedule.trainer.publishes
        for model in dict.fromkeys([*trained, *publishes]):
            is_published = model in publishes and (model not in system.models or system.models[model].infer)
            words = ["trains"] * (model in trained) + ["publishes"] * is_published
            yield Wire(trainer, Part("model", model), " and ".join(words) or "names")
        for model in schedule.trainer.reads:
            yield Wire(Part("model", model), trainer, "reads")
    for name in system.interactions:
        for model, what in system.models.items():
            if what.infer:
                yield Wire(Part("model", model), Part("interaction", name), "acts with")


def _notes(system: System, wires: tuple[Wire, ...]) -> Iterator[str]:
    fed = {wire.target.name for wire in wires if wire.target.kind == "buffer"}
    drawn = {wire.source.name for wire in wires if wire.source.kind == "buffer"}
    trained = {wire.target.name for wire in wires if wire.target.kind == "model" and "trains" in wire.label}
    published = {wire.target.name for wire in wires if "publishes" in wire.label}
    read = {wire.source.name for wire in wires if wire.label == "reads"}
    for name in system.buffers:
        if name not in drawn:
            yield f"no trainer draws from buffer {name!r}"
        if name not in fed and not system.buffers[name].filled:
            yield f"no interaction feeds buffer {name!r}: it gets what run.collect brings"
    for name, model in system.models.items():
        if model.train and name not in trained | published and system.trainers:
            yield f"no trainer trains model {name!r}; if that is meant, say train=False"
        if not model.infer and name in trained and name not in read and not _helps(system, name):
            yield f"model {name!r} is trained, but nothing that is published is trained beside it, and nobody reads it"


def _helps(system: System, model: str) -> bool:
    """Return whether a model that is not published is trained together with one that is."""
    return any(
        model in system.trained_by(name) and any(system.models[other].infer for other in system.published_by(name))
        for name in system.trainers
    )
