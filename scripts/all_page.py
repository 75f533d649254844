"""Write `docs/all.md`, every public name with one line and one example. Run: `python scripts/all_page.py`."""

from __future__ import annotations

import doctest
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pamiq_jax
import pamiq_jax.equinox
import pamiq_jax.flax
from pamiq_jax import envs, testing

PAGE = Path(__file__).parents[1] / "docs" / "all.md"
HEAD = """# All of pamiq_jax

Every public name, with one line and one example; each example is run by the tests. The [API page](api.md) has the
arguments. Written by `python scripts/all_page.py` from the docstrings.
"""
ROOMS = {
    "lifecycle": "What can happen to a trainer and to a system",
    "conditions": "When to train",
    "trainer": "How to train",
    "data": "What is learned from",
    "publishing": "What inference sees",
    "checkpoint": "What is kept",
    "recording": "What was recorded",
    "envs": "Worlds",
    "runtime": "Systems, live and in lockstep",
    "metrics": "What is measured",
    "errors": "What is refused",
}
# Names whose docstrings have no example: values, and what is only ever handed out.
EXAMPLES = {
    "SYSTEM_TRANSITIONS": ">>> pj.SYSTEM_TRANSITIONS[pj.SystemPhase.RUNNING, pj.SystemEvent.PAUSE].value\n'pausing'",
    "TRAINER_TRANSITIONS": ">>> pj.TRAINER_TRANSITIONS[pj.TrainerPhase.WAITING, pj.TrainerEvent.START].value\n"
    "'setting_up'",
    "SystemEvent": ">>> pj.SystemEvent.PAUSE.value\n'pause'",
    "SystemPhase": ">>> pj.SystemPhase('paused')\n<SystemPhase.PAUSED: 'paused'>",
    "TrainerEvent": ">>> pj.TrainerEvent.START.value\n'start'",
    "TrainerPhase": ">>> pj.transition(pj.TrainerPhase.WAITING, pj.TrainerEvent.START)\n"
    "<TrainerPhase.SETTING_UP: 'setting_up'>",
    "EnvironmentSpec": ">>> import numpy as np\n"
    ">>> spec = pj.EnvironmentSpec(observation=np.zeros(3), action=np.int32(0), feedback={'reward': 0.0})\n"
    ">>> spec.observation.shape\n(3,)",
    "FaultPolicy": ">>> pj.fail_fast().raises, pj.keep_acting().raises\n(True, False)",
    "Model": ">>> import jax.numpy as jnp\n>>> pj.Model(jnp.zeros(3), jnp.vdot, dtype=jnp.bfloat16).infer\nTrue",
    "Queue": ">>> pj.Queue(capacity=1000, overflow='drop_newest').chunk\n256",
    "PythonAgent": """>>> class Still:
...     extras = {}
...     def reset(self, seed): pass
...     def act(self, params, observation): return 0, {}
>>> isinstance(Still(), pj.PythonAgent)
True""",
    "Trainer": """>>> import optax
>>> pj.gradient_trainer(lambda params, x, key: (0.0, {}), optax.sgd(0.1), trains=("policy",))
Trainer(trains=('policy',), publishes=('policy',))""",
    "TrainerState": """>>> import jax, jax.numpy as jnp, optax
>>> trainer = pj.gradient_trainer(lambda w, x, key: (jnp.mean((w - x) ** 2), {}), optax.sgd(0.1))
>>> trainer.init(jax.random.key(0), jnp.zeros(3))
TrainerState(params=float32[3], opt_state=0, step=0)""",
    "System": """>>> pj.System(models={"m": pj.Model(0.0)}, buffers={"x": pj.ring_buffer(100, example=0.0)})
System(models=[m], buffers=[x])""",
}
_SYSTEM = """>>> import jax.numpy as jnp, optax
>>> trainer = pj.gradient_trainer(lambda params, x, key: (jnp.mean((params["m"] - x) ** 2), {}), optax.sgd(0.1))
>>> schedule = pj.Schedule(trainer, data="x", batch_size=4, steps=8, when=pj.min_new(2))
>>> system = pj.System({"m": pj.Model(jnp.zeros(()))}, {"x": pj.ring_buffer(9, example=0.0)}, {"t": schedule})
"""
_RUN = (
    _SYSTEM
    + """>>> with pj.launch(system) as run:
...     collected = [run.collect("x", number) for number in (1.0, 3.0)]
...     snapshot = run.wait_for_version(1, timeout=60)
"""
)
_TICK = (
    _SYSTEM
    + """>>> compiled = pj.compile_system(system)
>>> programs, learner, cells, clock = compiled.programs, compiled.learner, compiled.cells(), pj.VirtualClock()
>>> collected = [cells.collectors["x"].collect(number, version=0) for number in (1.0, 3.0)]
"""
)
_LOCKSTEP = """>>> import jax.numpy as jnp, numpy as np
>>> class Counting:
...     spec = pj.EnvironmentSpec(np.float32(0), np.float32(0), {})
...     def reset(self, seed): self.count = 0
...     def observe(self): return np.float32(self.count)
...     def affect(self, action): self.count += 1; return {}
...     def close(self): pass
>>> agent = pj.Agent(lambda params, carry, observation, key: (carry, params["m"] + observation, {}))
>>> system = pj.System({"m": pj.Model(jnp.ones(()))}, interaction=pj.Interaction(agent, Counting()))
"""
EXAMPLES |= {
    "LockstepResult": _LOCKSTEP
    + """>>> result = pj.run_lockstep(system, interactions=5)
>>> result.actor.tick, result.snapshot.version
(5, 0)""",
    "ScannedResult": """>>> import jax.numpy as jnp
>>> from pamiq_jax.envs import JaxEnvironment
>>> def step(key, place, action, params):
...     return place + action, place + action, place, False, {}
>>> walk = JaxEnvironment(lambda key, params: (0.0, 0.0), step, action=0.0)
>>> agent = pj.Agent(lambda params, carry, observation, key: (carry, params["m"], {}))
>>> system = pj.System({"m": pj.Model(jnp.ones(()))}, interaction=pj.Interaction(agent, walk))
>>> result = pj.run_scanned(system, interactions=1_000)
>>> result.actor.tick, result.snapshot.version
(1000, 0)""",
    "infer_tick": _LOCKSTEP
    + """>>> compiled, clock = pj.compile_system(system), pj.VirtualClock()
>>> system.interaction.environment.reset(0)
>>> actor, report = pj.infer_tick(compiled.programs, compiled.actors["agent"], compiled.cells(), clock, "agent")
>>> actor.tick, float(report.action)
(1, 1.0)""",
    "train_tick": _TICK
    + """>>> learner, report = pj.train_tick(programs, learner, cells, clock)
>>> report.trainer, report.version
('t', 1)""",
    "ReplayResult": _SYSTEM
    + """>>> import tempfile
>>> with tempfile.TemporaryDirectory() as directory:
...     with pj.launch(system, directory=directory, record=True) as run:
...         collected = [run.collect("x", number) for number in (1.0, 3.0)]
...         snapshot = run.wait_for_version(1, timeout=60)
...     again = pj.replay(directory, system)
>>> bool(again.snapshot.params["m"] == snapshot.params["m"])
True""",
    "Schedule": _SYSTEM + ">>> schedule.chunk\n8",
    "Run": _RUN + ">>> snapshot.version, run.snapshot.step\n(1, 8)",
    "Status": _RUN + ">>> run.status.trainers['t'].steps, run.status.buffers['x'].seen\n(8, 2)",
    "TrainerHandle": _RUN + ">>> run.trainers['t']\nTrainerHandle('t', ..., 8 steps)",
    "WaitResult": _RUN + ">>> run.wait()\n<WaitResult.ENDED: 'ended'>",
}


def pages() -> Iterator[tuple[str, str, str, Any]]:
    """Give the heading, the prefix, the name and the thing, of each public name in order."""
    by_room: dict[str, list[tuple[str, Any]]] = {room: [] for room in ROOMS}
    for name in pamiq_jax.__all__:
        thing = getattr(pamiq_jax, name)
        by_room[_room(name, thing)].append((name, thing))
    for room, heading in ROOMS.items():
        for name, thing in by_room[room]:
            yield heading, "pj", name, thing
    for heading, module in (
        ("Modules of flax (`pamiq_jax.flax`)", pamiq_jax.flax),
        ("Modules of equinox (`pamiq_jax.equinox`, an extra)", pamiq_jax.equinox),
        ("Suites for your own parts (`pamiq_jax.testing`)", testing),
    ):
        for name in module.__all__:
            if callable(thing := getattr(module, name)):
                yield heading, module.__name__, name, thing
    for name in envs.__all__:
        if name not in pamiq_jax.__all__ and callable(thing := getattr(envs, name)):
            yield "More of worlds (`pamiq_jax.envs`)", "pamiq_jax.envs", name, thing


def _room(name: str, thing: Any) -> str:
    module = "pamiq_jax.lifecycle" if name.endswith("_TRANSITIONS") else thing.__module__
    return module.split(".")[1]


def example(name: str, thing: Any) -> str:
    """Return the first example of a name, as it is typed."""
    found = doctest.DocTestParser().get_examples(inspect.getdoc(thing) or "")
    if not found:
        return EXAMPLES.get(name, "")
    lines: list[str] = []
    for each in found:
        first, *rest = each.source.rstrip("\n").split("\n")
        lines += [f">>> {first}", *(f"... {line}".rstrip() for line in rest)]
        if each.exc_msg is not None:
            lines += ["Traceback (most recent call last):", "...", each.exc_msg.rstrip("\n")]
        elif each.want:
            lines.append(each.want.rstrip("\n"))
    return "\n".join(lines)


def line(thing: Any) -> str:
    """Return the first sentence of what is said of a name."""
    if not inspect.isclass(thing) and not callable(thing):
        return "The phase that follows on each (phase, event); what is not in it is not possible."
    text = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
    return re.sub(r"\s+", " ", text)


def page() -> str:
    """Return the whole page."""
    parts, heading = [HEAD], ""
    for title, prefix, name, thing in pages():
        if title != heading:
            parts.append(f"\n## {title}\n")
            heading = title
        parts.append(f"\n### {prefix + '.' if prefix == 'pj' else ''}{name}\n\n{line(thing)}\n")
        if code := example(name, thing):
            parts.append(f"\n```pycon\n{code}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
