"""Write `docs/all.md`, every public name with one line and one example. Run: `python scripts/all_page.py`."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAliasType

import pamiq_jax
import pamiq_jax.errors
from pamiq_jax.envs import python_state

PAGE = Path(__file__).parents[1] / "docs" / "all.md"
HEAD = """# All of pamiq_jax

Every public name, with one line and one example; each example is run by the tests. First what is most needed, which is
in `pamiq_jax` itself, imported as `pj`; then what else each room has, with the types of the functions that it takes.
The [API page](api.md) has the arguments. Written by `python scripts/all_page.py` from the docstrings.
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
# What the rooms have that `pj` has not.
MORE = {
    "lifecycle": "More of the lifecycle",
    "conditions": "More of when to train",
    "trainer": "More of how to train",
    "flax": "Modules of flax",
    "equinox": "Modules of equinox, an extra",
    "data": "More of what is learned from",
    "publishing": "More of what inference sees",
    "checkpoint": "What is kept",
    "recording": "More of what was recorded",
    "envs": "Worlds",
    "runtime": "More of systems",
    "metrics": "More of what is measured",
    "testing": "Suites for your own parts",
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
Trainer(gradient_trainer, trains=('policy',), publishes=('policy',))""",
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


_STORE = """>>> import tempfile, numpy as np
>>> from pamiq_jax.checkpoint import StateStore, latest_n
>>> store = StateStore(tempfile.mkdtemp())
>>> infos = [store.write(np.full(3, step), facts={"step": step}, created_at=0.0) for step in range(3)]
"""
_TRAINER = """>>> import jax, jax.numpy as jnp, optax
>>> loss_fn = lambda params, batch, key: (jnp.mean((params["policy"] - batch) ** 2), {})
>>> trainer = pj.gradient_trainer(loss_fn, optax.sgd(0.1), trains=("policy",))
>>> key, params = jax.random.key(0), {"policy": jnp.zeros(3)}
"""
_ACTED = (
    _LOCKSTEP
    + """>>> result = pj.run_lockstep(system, interactions=5)
"""
)
_TRAINED = _TICK + ">>> learner, report = pj.train_tick(programs, learner, cells, clock)\n"
EXAMPLES |= {
    f"pamiq_jax.{name}": text
    for name, text in {
        "conditions.Term": """>>> from pamiq_jax.conditions import terms
>>> terms(pj.min_size(10), pj.Progress(size=12), pj.Progress())[0]
Term(depth=0, text='min_size(10)', holds=True, reason='has 12 of 10 records')""",
        "trainer.AlternatingState": _TRAINER
        + """>>> other_loss_fn = lambda params, batch, key: (jnp.sum(params["value"]), {})
>>> other = pj.gradient_trainer(other_loss_fn, optax.sgd(0.1), trains=("value",))
>>> state = pj.alternate(trainer, other).init(key, params | {"value": jnp.zeros(2)})
>>> list(state.parts), sorted(state.params)
(['policy', 'value'], ['policy', 'value'])""",
        "trainer.AveragedState": _TRAINER
        + """>>> print(pj.ema(trainer, 0.99).init(key, params).average["policy"])
[0. 0. 0.]""",
        "trainer.DonationPlan": _TRAINER
        + """>>> plan = pj.explain_donation(trainer, trainer.init(key, params))
>>> [row.leaf for row in plan.rows if row.donated]
['.step', '.rng_key']""",
        "trainer.DonationRow": _TRAINER
        + """>>> pj.explain_donation(trainer, trainer.init(key, params)).rows[0]
DonationRow(leaf=".params['policy']", nbytes=12, donated=False, reason='a parameter, in a snapshot')""",
        "trainer.GuardedState": _TRAINER
        + """>>> from pamiq_jax.trainer import guard
>>> guard(trainer).init(key, params)
GuardedState(inner=TrainerState(params={policy: 3}, opt_state=0, step=0), skipped=0, consecutive=0)""",
        "trainer.HyperparameterState": _TRAINER
        + """>>> make_trainer = lambda rate: pj.gradient_trainer(loss_fn, optax.sgd(rate))
>>> adjusted = pj.with_hyperparameters(make_trainer, rate=0.1)
>>> print(adjusted.init(key, params).hyperparameters["rate"])
0.1""",
        "trainer.Optimization": """>>> import optax
>>> from pamiq_jax.trainer import Optimization
>>> trainer = pj.gradient_trainer(lambda params, batch, key: (params.sum(), {}), optax.sgd(0.1))
>>> slower = lambda optimization: Optimization(optax.chain(optimization.tx, optax.scale(0.5)))
>>> trainer.with_optimization(slower)
Trainer(gradient_trainer)""",
        "trainer.ReadingState": _TRAINER
        + """>>> reading = pj.gradient_trainer(loss_fn, optax.sgd(0.1), trains=("policy",), reads=("world",))
>>> reading.init(key, params | {"world": jnp.ones(2)})
ReadingState(params={policy: 3}, opt_state=0, step=0, reads={world: 2})""",
        "trainer.SkippingState": _TRAINER
        + """>>> pj.skip_first(trainer, runs=2).init(key, params)
SkippingState(inner=TrainerState(params={policy: 3}, opt_state=0, step=0), skips=2, is_skipping=True)""",
        "trainer.StepState": """>>> import jax, jax.numpy as jnp, optax
>>> def update(params, opt_state, batch):
...     return params - 0.1 * batch.mean(), opt_state, batch.mean()
>>> state = pj.trainer_from_step(update, optax.sgd(0.1)).init(jax.random.key(0), jnp.zeros(3))
>>> sorted(state.values)
['opt_state', 'params']""",
        "trainer.TrainerPrograms": _SYSTEM + ">>> pj.compile_system(system).programs.trainers['t'].steps\n8",
        "trainer.WrappedState": _TRAINER
        + """>>> state = pj.ema(pj.skip_first(trainer, runs=1), 0.99).init(key, params)
>>> sorted(state.params), int(state.step), type(state.inner).__name__
(['policy'], 0, 'SkippingState')""",
        "data.CollectorCounts": """>>> collector = pj.Collector(example=0.0, capacity=2)
>>> kept = [collector.collect(number, version=0) for number in (1.0, 2.0, 3.0)]
>>> collector.counts
CollectorCounts(seen=3, dropped=1, pending=2)""",
        "data.PrioritizedBatch": """>>> import jax, jax.numpy as jnp
>>> buffer = pj.prioritized_buffer(8)
>>> state = buffer.add(buffer.init(0.0), jnp.arange(4.0), 4)
>>> batch = buffer.sample(state, 2, 0, jax.random.key(0))
>>> print(batch.indices.shape, batch.weights)
(2,) [1. 1.]""",
        "data.PrioritizedState": """>>> pj.prioritized_buffer(8).init(0.0)
PrioritizedState(ring=RingState(records=float32[8], head=0, size=0), sums=float32[16], largest=1.0)""",
        "data.ReservoirState": """>>> pj.reservoir_buffer(8).init(0.0)
ReservoirState(records=float32[8], size=0, offered=0)""",
        "data.RingState": """>>> pj.ring_buffer(8).init(0.0)
RingState(records=float32[8], head=0, size=0)""",
        "data.SequenceState": """>>> buffer = pj.sequence_buffer(capacity=8, window=3)
>>> type(buffer.init(0.0)).__name__
'SequenceState'""",
        "data.record_of": """>>> from pamiq_jax.data import record_of
>>> record = record_of(3.0)
>>> record.data, int(record.version)
(3.0, 0)""",
        "checkpoint.MatchReport": """>>> import tempfile, jax.numpy as jnp
>>> system, directory = pj.System(models={"m": pj.Model(jnp.zeros(3))}), tempfile.mkdtemp()
>>> with pj.launch(system, directory=directory) as run:
...     info = run.save()
>>> with pj.launch(system, directory=directory, resume=True) as run:
...     report = run.restored.report
>>> report.missing, report.different
((), {})""",
        "checkpoint.PruneReport": _STORE
        + """>>> report = store.prune(latest_n(1))
>>> report.kept, report.removed
((3,), (1, 2))""",
        "checkpoint.Retention": _STORE
        + """>>> from pamiq_jax.checkpoint import Retention, every_nth
>>> isinstance(latest_n(1) | every_nth(2), Retention)
True""",
        "checkpoint.StateInfo": _STORE
        + """>>> infos[-1].number, infos[-1].facts
(3, {'step': 2})""",
        "checkpoint.StateReport": _STORE
        + """>>> store.verify(2)
(StateReport(number=2, bytes=24, problems=()),)""",
        "recording.TickEntry": _SYSTEM
        + """>>> import tempfile
>>> directory = tempfile.mkdtemp()
>>> with pj.launch(system, directory=directory, record=True) as run:
...     collected = [run.collect("x", number) for number in (1.0, 3.0)]
...     snapshot = run.wait_for_version(1, timeout=60)
>>> [entry.tick.trainer for entry in pj.Recording(directory).ticks() if entry.tick.trainer]
['t']""",
        "runtime.ActorState": _ACTED + ">>> result.actor.tick, result.actor.carry\n(5, ())",
        "runtime.BufferStatus": _RUN + ">>> run.status.buffers['x'].size, run.status.buffers['x'].capacity\n(2, 9)",
        "runtime.Cells": _TICK + ">>> cells.store.latest.version, cells.collectors['x'].counts.seen\n(0, 2)",
        "runtime.Clock": """>>> clock = pj.VirtualClock()
>>> clock.advance(2.0)
>>> clock.now()
2.0""",
        "runtime.Compiled": _TICK + ">>> list(compiled.params), compiled.learner.trainers['t'].steps\n(['m'], 0)",
        "runtime.Difference": """>>> from pamiq_jax.runtime import Difference
>>> print(Difference(tick=3, seconds=0.5, what="chosen trainer", recorded="a", replayed="b").what)
chosen trainer""",
        "runtime.Faults": _TRAINED + ">>> learner.trainers['t'].faults.rollbacks\n0",
        "runtime.Good": _SYSTEM
        + """>>> compiled = pj.compile_system(system, faults=pj.keep_acting())
>>> cells, clock = compiled.cells(), pj.VirtualClock()
>>> collected = [cells.collectors["x"].collect(number, version=0) for number in (1.0, 3.0)]
>>> learner, report = pj.train_tick(compiled.programs, compiled.learner, cells, clock)
>>> int(learner.trainers["t"].faults.good.state.step)
8""",
        "runtime.InferReport": _LOCKSTEP
        + """>>> reports = []
>>> with pj.launch(system, on_interaction=reports.append) as run:
...     run.wait_until_ready()
...     run.pause()
>>> all(report.interaction == "agent" for report in reports)
True""",
        "runtime.InferenceStatus": """>>> from pamiq_jax.runtime import InferenceStatus
>>> InferenceStatus(ticks=3).merge(InferenceStatus(ticks=4)).ticks
7""",
        "runtime.LearnerState": _TRAINED + ">>> sorted(learner.trainers), learner.buffers['x'].inserted\n(['t'], 2)",
        "runtime.Meanwhile": """>>> from pamiq_jax.metrics import LatencyHistogram
>>> from pamiq_jax.runtime import InferenceStatus, Meanwhile
>>> training = LatencyHistogram.empty().add(0.002)
>>> InferenceStatus(ticks=1, latency_while={Meanwhile.TRAINING: training}).latency.total
1""",
        "runtime.MetricRow": _SYSTEM
        + """>>> rows = []
>>> with pj.launch(system, on_metrics=rows.append) as run:
...     collected = [run.collect("x", number) for number in (1.0, 3.0)]
...     snapshot = run.wait_for_version(1, timeout=60)
>>> rows[0].trainer, rows[0].step, rows[0].version, list(rows[0].metrics)
('t', 8, 1, ['loss'])""",
        "runtime.Moment": _SYSTEM
        + """>>> with pj.launch(system, history=2) as run:
...     collected = [run.collect("x", number) for number in (1.0, 3.0)]
...     snapshot = run.wait_for_version(1, timeout=60)
>>> run.history[0]
Moment(... s, version 1, t: waiting, 8 steps)""",
        "runtime.Programs": _TICK + ">>> programs.system is system, list(programs.trainers)\n(True, ['t'])",
        "runtime.PureEnvironment": """>>> from pamiq_jax.envs import JaxEnvironment
>>> from pamiq_jax.runtime import PureEnvironment
>>> step = lambda key, place, action, params: (place + action, place + action, place, False, {})
>>> isinstance(JaxEnvironment(lambda key, params: (0.0, 0.0), step, action=0.0), PureEnvironment)
True""",
        "runtime.RecordingStatus": """>>> from pamiq_jax.runtime import RecordingStatus
>>> print(RecordingStatus(ticks=3, bytes=2_000_000))
recording: 3 ticks, 2.0 MB""",
        "runtime.TrainReport": _TRAINED
        + ">>> report.trainer, report.version, list(report.metrics)\n('t', 1, ['loss'])",
        "runtime.TrainerRun": _TRAINED
        + """>>> run = learner.trainers["t"]
>>> run.phase.value, run.steps, run.runs
('waiting', 8, 1)""",
        "runtime.TrainerStatus": _RUN
        + ">>> run.status.trainers['t'].steps, list(run.status.trainers['t'].metrics)\n(8, ['loss'])",
        "runtime.WorldFunctions": """>>> import jax
>>> from pamiq_jax.envs import JaxEnvironment
>>> step = lambda key, place, action, params: (place + action, place + action, place, False, {})
>>> functions = JaxEnvironment(lambda key, params: (0.0, 0.0), step, action=0.0).functions
>>> world = functions.start(jax.random.key(0))
>>> print(functions.observe(world))
0.0""",
        "envs.python_state": """>>> import gymnasium
>>> from pamiq_jax.envs import python_state
>>> first, second = (gymnasium.make("CartPole-v1") for _ in range(2))
>>> resets = [world.reset(seed=seed) for seed, world in enumerate((first, second))]
>>> python_state.load(second, python_state.save(first))
>>> bool((second.unwrapped.state == first.unwrapped.state).all())
True""",
    }.items()
}


# What fits a type: a line each, below the table of its room.
VALUES = {
    "Event": "event: Event = pj.SystemEvent.PAUSE",
    "Phase": "phase: Phase = pj.TrainerPhase.TRAINING",
    "ConditionFn": "every_other_step: ConditionFn = lambda now, last: now.steps % 2 == 0",
    "ConditionLike": "either: ConditionLike = pj.min_new(3) | every_other_step",
    "Count": "count: Count = 3",
    "Spans": "spans: Spans = {'records': ((10, float('inf')),)}",
    "Truth": "truth: Truth = True",
    "ChangeFn": "forget: ChangeFn = lambda state: state.replace(opt_state=())",
    "ChunkFn": "still: ChunkFn = lambda state, buffer_state, position, rng_key: (state, {})",
    "Decay": "decay: Decay = lambda steps: 1 - 1 / (steps + 1)",
    "InitFn": "init: InitFn = lambda rng_key, params: pj.TrainerState(params, (), 0, rng_key)",
    "Labels": "labels: Labels = lambda params: dict.fromkeys(params, 'slow')",
    "LossFn": "loss_fn: LossFn = lambda params, batch, rng_key: (((params - batch) ** 2).mean(), {})",
    "PublishFn": "publish: PublishFn = lambda state: {'encoder': state.params['encoder']}",
    "ReceiveFn": "receive: ReceiveFn = lambda state, models: state.replace(params={**state.params, **models})",
    "SampleFn": "newest: SampleFn = lambda buffer_state, position, rng_key: buffer_state.records[-8:]",
    "StepFn": "step: StepFn = lambda state, batch: (state.replace(step=state.step + 1), {'mean': batch.mean()})",
    "EvaluateFn": "evaluate: EvaluateFn = optax.contrib.schedule_free_eval_params",
    "LinenLossFn": "loss_fn: LinenLossFn = lambda variables, batch, rngs: (variables['params'].sum(), ({}, {}))",
    "NnxLossFn": "loss_fn: NnxLossFn = lambda module, batch: ((module(batch) ** 2).mean(), {})",
    "EquinoxLossFn": "loss_fn: EquinoxLossFn = lambda module, state, batch, key: (module(batch).sum(), (state, {}))",
    "BorderFn": "ends_segment: BorderFn = lambda data: data['done']",
    "MixFn": "first: MixFn = lambda states, batch_size, position, rng_key: states[0].records[:batch_size]",
    "Overflow": "overflow: Overflow = 'drop_newest'",
    "Placement": "placement: Placement = 'host'",
    "Sampling": "sampling: Sampling = 'epochs'",
    "MakeFn": "numbers: MakeFn = lambda epoch: iter(range(10 * epoch, 10 * epoch + 10))",
    "OnTransition": "tell: OnTransition = lambda transition: print(transition.machine, transition.after)",
    "Repair": "repair: Repair = {'vae': lambda state: state}",
    "RepairFn": "slower: RepairFn = lambda state: pj.set_hyperparameters(state, learning_rate=1e-4)",
}


def row_examples(prefix: str, names: list[str]) -> str:
    """Return an example of each row of a table: a value that fits a type, or what an error can be caught as."""
    if prefix == "pamiq_jax.errors":
        lines = ["import pamiq_jax.errors as errors"]
        for name in names:
            bases = [base.__name__ for base in getattr(pamiq_jax.errors, name).__mro__ if base.__module__ == "builtins"]
            lines.append(f"issubclass(errors.{name}, {bases[0]})")
        return "\n".join(f">>> {text}" + "\nTrue" * text.startswith("issubclass") for text in lines)
    first = (
        [f"from {prefix} import {', '.join(names)}"] if prefix != "pj" else [f"{name} = pj.{name}" for name in names]
    )
    imports = ["import optax"] * ("EvaluateFn" in names)
    return "\n".join(f">>> {text}" for text in [*imports, *first, *(VALUES[name] for name in names)])


def pages() -> Iterator[tuple[str, str, str, Any]]:
    """Give the heading, the prefix, the name and the thing, of each public name in order."""
    by_room: dict[str, list[tuple[str, Any]]] = {room: [] for room in ROOMS}
    for name in pamiq_jax.__all__:
        thing = getattr(pamiq_jax, name)
        by_room[_room(name, thing)].append((name, thing))
    for room, heading in ROOMS.items():
        for name, thing in by_room[room]:
            yield heading, "pj", name, thing
    for room, heading in MORE.items():
        module = importlib.import_module(f"pamiq_jax.{room}")
        for name in module.__all__:
            if name not in pamiq_jax.__all__:
                yield f"{heading} (`{module.__name__}`)", module.__name__, name, getattr(module, name)
    for name, thing in vars(pamiq_jax.errors).items():
        if inspect.isclass(thing) and issubclass(thing, pamiq_jax.errors.PamiqError):
            yield "What is refused (`pamiq_jax.errors`)", "pamiq_jax.errors", name, thing


def _room(name: str, thing: Any) -> str:
    module = "pamiq_jax.lifecycle" if name.endswith("_TRANSITIONS") else thing.__module__
    return module.split(".")[1]


def example(name: str, thing: Any) -> str:
    """Return the first example of a name, as it is typed."""
    said = inspect.getdoc(thing) if inspect.isclass(thing) or callable(thing) else ""  # a value's is its class's
    found = doctest.DocTestParser().get_examples(said or "")
    if not found:
        return EXAMPLES.get(name, "").rstrip("\n")
    lines: list[str] = []
    for each in found:
        first, *rest = each.source.rstrip("\n").split("\n")
        lines += [f">>> {first}", *(f"... {line}".rstrip() for line in rest)]
        if each.exc_msg is not None:
            lines += ["Traceback (most recent call last):", "...", each.exc_msg.rstrip("\n")]
        elif each.want:
            lines.append(each.want.rstrip("\n"))
    return "\n".join(lines)


def line_below(name: str, defined_in: str) -> str:
    """Return what is said of a type alias or a value: the string below it, which nothing has when it runs."""
    path = importlib.import_module(defined_in).__file__
    assert path is not None
    body = ast.parse(Path(path).read_text(encoding="utf-8")).body
    for statement, below in itertools.pairwise(body):
        is_alias = isinstance(statement, ast.TypeAlias) and statement.name.id == name
        is_value = isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == name
        if (is_alias or is_value) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            return re.sub(r"\s+", " ", str(below.value.value))
    raise LookupError(f"{defined_in}.{name} has no string below it that says what it is")


def line(thing: Any) -> str:
    """Return the first sentence of what is said of a name."""
    if isinstance(thing, TypeAliasType):
        return line_below(thing.__name__, thing.__module__)
    if thing is python_state:
        return line_below("python_state", type(thing).__module__)
    if not inspect.isclass(thing) and not callable(thing):
        return "The phase that follows on each (phase, event); what is not in it is not possible."
    text = (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
    return re.sub(r"\s+", " ", text)


def is_row(prefix: str, thing: Any) -> bool:
    """Return whether a name stands in a table: types of functions and values, and errors."""
    return isinstance(thing, TypeAliasType) or prefix == "pamiq_jax.errors"


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    known = list(pages())
    for title in dict.fromkeys(title for title, *_ in known):
        parts.append(f"\n## {title}\n")
        here = [(prefix, name, thing) for heading, prefix, name, thing in known if heading == title]
        rows = [(name, line(thing)) for prefix, name, thing in here if is_row(prefix, thing)]
        for prefix, name, thing in here:
            if not is_row(prefix, thing):
                code = example(name if prefix == "pj" else f"{prefix}.{name}", thing)
                shown = f"pj.{name}" if prefix == "pj" else name
                parts.append(f"\n### {shown}\n\n{line(thing)}\n")
                parts.append(f"\n```pycon\n{code}\n```\n" if code else "")
        if rows:
            escaped = [f"| `{name}` | {text.replace('|', chr(92) + '|')} |\n" for name, text in rows]
            parts.append("\n| name | what it is |\n|---|---|\n" + "".join(escaped))
            prefix = next(prefix for prefix, _, thing in here if is_row(prefix, thing))
            parts.append(f"\n```pycon\n{row_examples(prefix, [name for name, _ in rows])}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
