"""An agent that wants to be surprised: it is rewarded by the error of its own forward dynamics, and by nothing else.

Eight cars in the valley of Gymnasium's MountainCarContinuous-v0 share one mind. Every 200 steps they wake up at the
bottom; the hills are too steep to drive up straight away. Two trainers learn while the cars drive: the forward dynamics
to expect what is seen next, and PPO to go where that fails. What is understood becomes boring, so the agent moves on,
swings higher and higher, and sees more of its world than one that acts at random. The environment's own reward is not
even collected.

Schmidhuber 1991; Pathak et al. 2017, arXiv:1705.05363. Run: `python -m examples.curiosity`
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from examples import figures
from examples.drawings.curiosity import draw
from examples.forward_dynamics import HIDDEN, dynamics, init_dynamics, learn_dynamics
from examples.ppo import Task, gaussian, make_loss
from pamiq_jax.data import Record, rollout_buffer, sequence_buffer
from pamiq_jax.demo.networks import apply_network, init_network
from pamiq_jax.envs import GymnasiumVectorEnvironment
from pamiq_jax.runtime import InferReport

CARS, DAY, WINDOW, CAPACITY = 8, 200, 64, 4_000
LOW, HIGH = np.float32([-1.2, -0.07]), np.float32([0.6, 0.07])  # position and speed

TASK = Task("MountainCarContinuous-v0", gaussian(1), num_envs=CARS, discount=0.99, gae_lambda=0.99, reward_scale=0.05)

# --- The agent.


def see(observation: jax.Array) -> jax.Array:
    """Return position and speed `[..., 2]`, from -1 to 1."""
    low = LOW.reshape((1,) * (observation.ndim - 1) + (2,))
    return 2.0 * (observation - low) / (HIGH - LOW).reshape(low.shape) - 1.0


def act(params: Mapping[str, Any], carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
    """Act by the policy, and say how surprising it is what the action before has led to.

    Args:
        params: "policy" and "dynamics".
        carry: of the model `[N, H]`, and what it expects to be seen now `[N, 2]`.
        observation: position and speed `[N, 2]`.
        rng_key: consumed.
    """
    hidden, expected = carry
    seen = see(observation)
    output = apply_network(params["policy"], seen)
    action = TASK.distribution.sample(output, rng_key)
    force = jnp.clip(action, -1.0, 1.0)
    extras = {
        "seen": seen,
        "hidden": hidden,
        "force": force,
        "log_prob": TASK.distribution.log_prob(output, action),
        "surprise": jnp.linalg.norm(seen - expected, axis=-1),
    }
    return dynamics.apply(params["dynamics"], hidden, seen, force), action, extras


agent = pj.Agent(act, lambda rng_key: (jnp.zeros((CARS, HIDDEN)), jnp.zeros((CARS, 2))), resets_on="autoreset")

# --- What the trainers make of its life.


def only(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return the function that picks so much of a record."""
    return lambda record: {name: record[name] for name in names}


def windows(record: Record[Any]) -> dict[str, jax.Array]:
    """Return windows `[B, T, N, ...]` as the dynamics' batch `[B * N, T, ...]`: each car is one more life."""

    def merge(leaf: jax.Array) -> jax.Array:
        return jnp.moveaxis(leaf, -2, 1).reshape(-1, *leaf.shape[1:-2], leaf.shape[-1])

    return {
        name: merge(record.data[key]) for name, key in (("seen", "seen"), ("action", "force"), ("hidden", "hidden"))
    }


def rollout(record: Record[Any]) -> dict[str, jax.Array]:
    """Return a rollout `[T + 1, N, ...]` whose reward is the surprise at what each action led to.

    Relative to the rollout's mean, since surprise becomes less all the time, and 0 on average: a reward for merely
    being there would be the most of what the value has to learn.
    """
    surprise = jnp.roll(record.data["surprise"], -1, axis=0)  # it shows one step later
    reward = surprise / jnp.mean(surprise[:-1], where=~record.data["autoreset"][:-1]) - 1.0
    return {**record.data, "observation": record.data["seen"], "reward": reward}


# --- The system.


class Endless(gymnasium.Wrapper[Any, Any, Any, Any]):
    """A world without a goal: what would end an episode does not."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Take a step that never terminates."""
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, False, truncated, info


def valley() -> GymnasiumVectorEnvironment:
    """Return cars that wake up at the bottom every day."""
    return GymnasiumVectorEnvironment(
        gymnasium.make_vec(
            TASK.name, num_envs=CARS, vectorization_mode="sync", wrappers=[Endless], max_episode_steps=DAY
        )
    )


def make_system(seed: int = 0, interval_seconds: float | None = None) -> pj.System:
    """Return a system with the two trainers; launch it, or run it in lockstep."""
    generator = np.random.default_rng(seed)
    learner = pj.gradient_trainer(
        make_loss(TASK),
        optax.adam(TASK.learning_rate, eps=1e-5),
        trains=("policy", "value"),
        publishes=("policy",),
    )
    ppo = pj.clip_gradients(learner, 0.5)
    return pj.System(
        models={
            "dynamics": pj.Model(init_dynamics(seed)),
            "policy": pj.Model(init_network((2, *TASK.hidden, TASK.distribution.outputs), 0.01, generator)),
            "value": pj.Model(init_network((2, *TASK.hidden, 1), 1.0, generator), infer=False),
        },
        buffers={
            "life": sequence_buffer(
                CAPACITY, window=WINDOW, carry="hidden", ends_segment=lambda data: jnp.any(data["autoreset"])
            ),
            "rollout": rollout_buffer(TASK.rollout_length),
        },
        trainers={
            "dynamics": learn_dynamics(
                3e-4, batch_size=4, steps=8, prepare=windows, when=pj.min_size(2 * WINDOW) & pj.min_new(32)
            ),
            "ppo": pj.Schedule(
                ppo,
                data="rollout",
                batch_size=TASK.rollout_length + 1,
                steps=TASK.gradient_steps,
                steps_per_chunk=TASK.gradient_steps,
                when=pj.min_new(TASK.rollout_length),
                prepare=rollout,
            ),
        },
        interaction=pj.Interaction(
            agent,
            valley(),
            interval_seconds,
            collect={
                "life": only("seen", "force", "hidden", "autoreset"),
                "rollout": only("seen", "action", "log_prob", "surprise", "terminated", "truncated", "autoreset"),
            },
        ),
    )


def make_random_system() -> pj.System:
    """Return a system whose cars push at random, with full force to the left or to the right."""

    def wander(params: Any, carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
        return carry, jax.random.rademacher(rng_key, (CARS, 1), jnp.float32), {"seen": see(observation)}

    return pj.System(models={}, interaction=pj.Interaction(pj.Agent(wander), valley()))


# --- What it has seen.


class Visits:
    """Keeps what was seen at every tick; give it as `on_interaction`."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray[Any, Any]] = []

    def __call__(self, report: InferReport) -> None:
        """Keep what was seen at one tick."""
        self.seen.append(report.extras["seen"])

    def counts(self, cells: int = 30) -> np.ndarray[Any, Any]:
        """Return how often each cell of a grid over position and speed was visited, `[cells, cells]`."""
        return np.histogram2d(*np.concatenate(self.seen).T, bins=cells, range=[(-1, 1), (-1, 1)])[0]

    def shares(self, cells: int = 30) -> np.ndarray[Any, Any]:
        """Return the share of cells that were visited by each tick, `[T]`."""
        places = np.clip((np.stack(self.seen) + 1) / 2 * cells, 0, cells - 1).astype(int)
        first = np.unique(places[..., 0] * cells + places[..., 1], return_index=True)[1] // CARS
        return np.cumsum(np.bincount(first, minlength=len(places))) / cells**2


def learn_live(seconds: float, *, seed: int = 0) -> Visits:
    """Return what was seen in so many seconds, at a hundred ticks in each."""
    visits, system = Visits(), make_system(seed, interval_seconds=0.01)
    with pj.launch(system, seed=seed, on_interaction=visits) as run:
        run.wait_until_ready()
        run.wait(seconds)
    return visits


def act_at_random(ticks: int, *, seed: int = 0) -> Visits:
    """Return what cars see that push at random."""
    visits = Visits()
    pj.run_lockstep(make_random_system(), ticks, seed=seed, on_interaction=visits)
    return visits


def main(directory: Path = figures.RUNS) -> None:
    """Let it live for a minute, and draw what it has seen beside what a random agent sees in as many ticks."""
    curious = learn_live(60.0)
    random = act_at_random(len(curious.seen))
    for name, visits in (("curious", curious), ("random", random)):
        print(f"{name}: {visits.shares()[-1]:.0%} of the cells visited in {len(visits.seen):,} ticks")
    print(f"figure: {figures.save(draw(curious, random), 'curiosity', directory)}")


if __name__ == "__main__":
    main()
