"""A small system with something of all that a saved state can hold: for the golden state and for other processes.

What is here decides what tests/golden/system-v1 can be restored into, so it stays as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from pamiq_jax.data import mixed_buffer, reservoir_buffer, rollout_buffer, sequence_buffer

TICKS, TRAIN_TICKS = 21, 2
"""After so many ticks four trainers are inside a run, one waits for its group, and records and batches wait."""


class Pond:
    """A world with two numbers and a generator of its own."""

    spec = pj.EnvironmentSpec(np.zeros(2, np.float32), np.float32(0), {"reward": np.float32(0), "ended": np.bool_(0)})

    def reset(self, seed: int) -> None:
        self._random, self._place, self._ticks = np.random.default_rng(seed), np.zeros(2, np.float32), 0

    def observe(self) -> np.ndarray:
        return self._place

    def affect(self, action: Any) -> dict[str, Any]:
        self._ticks += 1
        step = self._random.standard_normal(2, np.float32)
        self._place = np.float32(0.5) * (self._place + step + np.float32(action))
        return {"reward": np.float32(self._place.sum()), "ended": np.bool_(self._ticks % 9 == 0)}

    def save_state(self) -> Any:
        return {"random": self._random.bit_generator.state, "place": self._place, "ticks": self._ticks}

    def load_state(self, state: Any) -> None:
        self._place, self._ticks = state["place"], state["ticks"]
        self._random.bit_generator.state = state["random"]

    def close(self) -> None:
        pass


class Counting:
    """An agent in Python that remembers how often it has acted."""

    extras: Any = {}  # noqa: RUF012

    def reset(self, seed: int) -> None:
        self._count = 0

    def act(self, params: Any, observation: Any) -> tuple[Any, Any]:
        self._count += 1
        return np.float32(np.sin(self._count)), {}

    def save_state(self) -> Any:
        return {"count": self._count}

    def load_state(self, state: Any) -> None:
        self._count = state["count"]


def _act(params: Any, carry: jax.Array, observation: jax.Array, rng_key: jax.Array) -> Any:
    action = jnp.vdot(params["policy"], observation) + jax.random.uniform(rng_key)
    return 0.5 * carry + observation, action, {"carry": carry}


AGENT = pj.Agent(_act, lambda rng_key: jnp.zeros(2), resets_on="ended")


def _trainer(model: str, tx: Any) -> pj.Trainer[Any, Any]:
    def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        records = getattr(batch, "records", batch)
        records = records.get("one", records)
        places = records["observation"]
        errors = jnp.mean((places - params[model].reshape((1,) * (places.ndim - 1) + (2,))) ** 2, axis=-1)
        if isinstance(batch, dict):
            return jnp.mean(errors), {}
        return jnp.mean(batch.weights * errors), {"priorities": errors}

    return pj.gradient_trainer(loss_fn, tx, trains=(model,))


def _place(record: dict[str, Any]) -> dict[str, Any]:
    return {"observation": record["observation"]}


def _life(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("observation", "ended", "carry")}


LONELY = ("epochs", "windows", "rollout", "prioritized")
"""Buffers that only one interaction feeds."""


def everything() -> pj.System:
    """Return a new system: every kind of buffer, models handed on, a group, two interactions, two agents."""
    buffers = {
        "uniform": pj.ring_buffer(6),
        "epochs": pj.ring_buffer(5, sampling="epochs"),
        "windows": sequence_buffer(8, window=3, stride=2, carry="carry", ends_segment=lambda data: data["ended"]),
        "rollout": rollout_buffer(4),
        "prioritized": pj.prioritized_buffer(6),
        "mix": mixed_buffer([pj.ring_buffer(4), reservoir_buffer(5, seed=2)], [1, 1]),
        "host": pj.ring_buffer(6, placement="host"),
    }
    chunks: dict[str, Any] = {"batch_size": 2, "steps": 4, "steps_per_chunk": 2, "when": pj.min_size(3) & pj.min_new(2)}
    adam, sgd = optax.adam(0.1), optax.sgd(0.1)

    def learn(model: str, data: Any, tx: Any = sgd, **changes: Any) -> pj.Schedule:
        return pj.Schedule(_trainer(model, tx), data=data, **(chunks | changes))

    trainers = {
        "policy": learn("policy", "prioritized", adam, group="both", weight=2.0),
        "value": learn("value", "windows", group="both", when=pj.min_size(4) & pj.min_new(2)),
        "refine": learn("value", {"one": "uniform", "other": "mix"}, after=("value",)),
        "epochs": learn("seen", "epochs"),
        "rollout": learn("rolled", "rollout", batch_size=5, when=pj.min_new(4)),
        "host": learn("far", "host"),
    }
    models = {
        name: pj.Model(jnp.zeros(2), infer=name != "far") for name in ("policy", "value", "seen", "rolled", "far")
    }
    shared = {name: _place for name in buffers if name not in LONELY}
    lonely = {"epochs": _place, "windows": _life, "rollout": _place, "prioritized": _place}
    return pj.System(
        models=models,
        buffers=buffers,
        trainers=trainers,
        interaction={
            "left": pj.Interaction(AGENT, Pond(), interval_seconds=0.01, collect={**shared, **lonely}),
            "right": pj.Interaction(Counting(), Pond(), interval_seconds=0.02, collect=shared),
        },
    )


def write_golden(directory: Path) -> None:
    """Write what lies in tests/golden/system-v1. What is golden is never written again."""
    pj.run_lockstep(everything(), TICKS, seed=3, train_ticks=TRAIN_TICKS, directory=directory)
    (directory / "temporary").rmdir()
