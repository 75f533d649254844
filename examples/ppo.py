"""Proximal policy optimization: an agent that learns from what it has just done, and from nothing older.

The loss gets a whole rollout, sees with its own value network how much better each action went than expected
(generalized advantage estimation, a scan backward in time), and learns from a random part of it. The policy is
a categorical distribution for CartPole-v1 and a Gaussian for Pendulum-v1; nothing else differs. The system is
launched in threads, where the agent never waits for the trainer, or runs in lockstep, where all is repeatable.

Schulman et al. 2017, arXiv:1707.06347; Schulman et al. 2016, arXiv:1506.02438. Run: `python -m examples.ppo`
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from examples import figures
from examples.drawings.ppo import Episodes, draw
from pamiq_jax.data import rollout_buffer
from pamiq_jax.demo.advantages import generalized_advantages
from pamiq_jax.demo.networks import apply_network, init_network
from pamiq_jax.envs import EpisodeStatistics, GymnasiumVectorEnvironment
from pamiq_jax.runtime import InferReport

# --- What the policy network's output means.


class Distribution(NamedTuple):
    """A family of distributions over actions, given by the policy's output `[..., outputs]`."""

    outputs: int
    sample: Callable[[jax.Array, jax.Array], jax.Array]  # (output, rng_key) -> action
    log_prob: Callable[[jax.Array, jax.Array], jax.Array]  # (output, action) -> [...]
    entropy: Callable[[jax.Array], jax.Array]  # (output) -> [...]


def categorical(actions: int) -> Distribution:
    """Return the distributions over `range(actions)`; the output is their logits."""

    def log_prob(output: jax.Array, action: jax.Array) -> jax.Array:
        return jnp.take_along_axis(jax.nn.log_softmax(output), action[..., None], axis=-1)[..., 0]

    def entropy(output: jax.Array) -> jax.Array:
        return -jnp.sum(jax.nn.softmax(output) * jax.nn.log_softmax(output), axis=-1)

    return Distribution(actions, lambda output, key: jax.random.categorical(key, output), log_prob, entropy)


def gaussian(size: int) -> Distribution:
    """Return independent normal distributions of `size` numbers; the output is means, then log deviations."""

    def sample(output: jax.Array, rng_key: jax.Array) -> jax.Array:
        mean, log_deviation = jnp.split(output, 2, axis=-1)
        return mean + jnp.exp(log_deviation) * jax.random.normal(rng_key, mean.shape)

    def log_prob(output: jax.Array, action: jax.Array) -> jax.Array:
        mean, log_deviation = jnp.split(output, 2, axis=-1)
        return jnp.sum(jax.scipy.stats.norm.logpdf(action, mean, jnp.exp(log_deviation)), axis=-1)

    def entropy(output: jax.Array) -> jax.Array:
        log_deviation = jnp.split(output, 2, axis=-1)[1]
        return jnp.sum(log_deviation + 0.5 * jnp.log(2 * jnp.pi * jnp.e), axis=-1)

    return Distribution(2 * size, sample, log_prob, entropy)


# --- The task and the loss.


@dataclass(frozen=True)
class Task:
    """An environment and what suits it."""

    name: str
    distribution: Distribution
    num_envs: int = 8
    rollout_length: int = 64
    gradient_steps: int = 64
    minibatch_size: int = 64
    learning_rate: float = 1e-3
    annealing_updates: int = 300
    discount: float = 0.98
    gae_lambda: float = 0.9
    clip_range: float = 0.2
    entropy_weight: float = 0.0
    reward_scale: float = 1.0
    hidden: tuple[int, ...] = (64, 64)


CARTPOLE = Task("CartPole-v1", categorical(2), entropy_weight=0.001)
PENDULUM = Task(
    "Pendulum-v1",
    gaussian(1),
    num_envs=16,
    gradient_steps=128,
    annealing_updates=60,
    discount=0.9,
    gae_lambda=0.95,
    reward_scale=0.1,
)


def make_loss(task: Task) -> Callable[..., Any]:
    """Return the loss of "policy" and "value" on a rollout `[T + 1, N, ...]`, whose last row says what came after."""
    log_prob_of, entropy_of = task.distribution.log_prob, task.distribution.entropy

    def loss_fn(params: Any, rollout: Any, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        values = jax.lax.stop_gradient(apply_network(params["value"], rollout["observation"])[..., 0])
        steps = {name: leaf[:-1] for name, leaf in rollout.items()}
        steps["reward"] = task.reward_scale * steps["reward"]
        steps["advantage"] = generalized_advantages(steps, values, task.discount, task.gae_lambda)
        steps["return"] = values[:-1] + steps["advantage"]
        batch = random_rows(steps, task.minibatch_size, rng_key)

        output = apply_network(params["policy"], batch["observation"])
        ratio = jnp.exp(log_prob_of(output, batch["action"]) - batch["log_prob"])
        advantage = jax.nn.standardize(batch["advantage"], where=~batch["autoreset"])
        policy_loss = -mean(clipped_gain(ratio, advantage, task.clip_range), batch)
        value_loss = mean((apply_network(params["value"], batch["observation"])[..., 0] - batch["return"]) ** 2, batch)
        entropy = mean(entropy_of(output), batch)
        loss = policy_loss + 0.5 * value_loss - task.entropy_weight * entropy
        return loss, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}

    return loss_fn


def clipped_gain(ratio: jax.Array, advantage: jax.Array, clip_range: float) -> jax.Array:
    """Return what other probabilities of the actions promise: nothing more, once they have moved out of the range."""
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip_range, 1 + clip_range) * advantage)


def random_rows(steps: Mapping[str, jax.Array], count: int, rng_key: jax.Array) -> dict[str, jax.Array]:
    """Return `count` of the `[T, N]` steps, `[count, ...]`."""
    shape = steps["reward"].shape
    time, place = jnp.divmod(jax.random.randint(rng_key, (count,), 0, shape[0] * shape[1]), shape[1])
    return {name: leaf[time, place] for name, leaf in steps.items()}


def mean(values: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Return the mean over the rows that belong to an episode: on the others the environment only starts anew."""
    return jnp.mean(values, where=~batch["autoreset"])


# --- The system.


def make_agent(task: Task) -> pj.Agent[Any]:
    """Return an agent that draws from the policy, and records how likely that was."""

    def act(params: Any, carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
        output = apply_network(params["policy"], observation)
        action = task.distribution.sample(output, rng_key)
        return carry, action, {"log_prob": task.distribution.log_prob(output, action)}

    return pj.Agent(act)


def make_system(task: Task, seed: int = 0) -> pj.System:
    """Return the system; launch it, or run it in lockstep."""
    environment = GymnasiumVectorEnvironment(gymnasium.make_vec(task.name, num_envs=task.num_envs))
    inputs, generator = environment.spec.observation.shape[-1], np.random.default_rng(seed)
    updates = task.gradient_steps * task.annealing_updates
    tx = optax.adam(optax.linear_schedule(task.learning_rate, task.learning_rate / 10, updates), eps=1e-5)
    trainer = pj.gradient_trainer(make_loss(task), tx, trains=("policy", "value"), publishes=("policy",))
    trainer = pj.clip_gradients(trainer, 0.5)
    return pj.System(
        models={
            "policy": pj.Model(
                init_network((inputs, *task.hidden, task.distribution.outputs), 0.01, generator), apply_network
            ),
            "value": pj.Model(init_network((inputs, *task.hidden, 1), 1.0, generator), infer=False),
        },
        buffers={"rollout": rollout_buffer(task.rollout_length)},
        trainers={
            "ppo": pj.Schedule(
                trainer,
                data="rollout",
                batch_size=task.rollout_length + 1,
                steps=task.gradient_steps,
                steps_per_chunk=task.gradient_steps,
                when=pj.min_new(task.rollout_length),
            )
        },
        interaction=pj.Interaction(make_agent(task), environment),
    )


# --- Running it.


class Returns:
    """Notes each finished episode down, as `(environment steps so far, return)`; give it as `on_interaction`.

    Args:
        num_envs: environments that are stepped together.
    """

    def __init__(self, num_envs: int) -> None:
        self.statistics, self.num_envs, self.steps = EpisodeStatistics.empty(num_envs, window=20), num_envs, 0
        self.episodes: Episodes = []

    def __call__(self, report: InferReport) -> None:
        """Note the episodes down that a tick has ended."""
        before, self.statistics = self.statistics.finished, self.statistics.add(report.feedback)
        self.steps += self.num_envs
        if finished := self.statistics.finished - before:
            self.episodes += [(self.steps, value) for value in self.statistics.recent[-finished:]]


def learn_in_lockstep(task: Task, interactions: int, *, seed: int = 0) -> tuple[Returns, pj.LockstepResult]:
    """Return what was reached in so many ticks, each followed by an update if a rollout is complete: repeatable."""
    system, returns = make_system(task, seed), Returns(task.num_envs)
    with contextlib.closing(system.interaction.environment):
        return returns, pj.run_lockstep(system, interactions, seed=seed, on_interaction=returns)


def learn_live(task: Task, goal: float, *, seconds: float = 60.0, seed: int = 0) -> tuple[Returns, pj.Status]:
    """Return what was reached in threads, where the agent acts on while the trainer learns.

    Args:
        task: the task.
        goal: end when the mean return of the newest 20 episodes is this.
        seconds: end then at the latest.
        seed: of all that is drawn; threads make it another run each time all the same.
    """
    system, returns = make_system(task, seed), Returns(task.num_envs)
    with (
        contextlib.closing(system.interaction.environment),
        pj.launch(system, seed=seed, on_interaction=returns) as run,
    ):
        run.wait_until_ready()
        while run.status.seconds < seconds and not (returns.statistics.is_full and returns.statistics.mean >= goal):
            run.wait(0.1)
        return returns, run.status


def main(directory: Path = figures.RUNS) -> None:
    """Learn CartPole-v1 live and in lockstep, Pendulum-v1 in lockstep; print and draw what was reached."""
    live, status = learn_live(CARTPOLE, goal=475.0)
    print(f"CartPole-v1, live: return {live.statistics.mean:.0f} after {status.seconds:.1f} s, {live.steps:,} steps")
    lockstep, _ = learn_in_lockstep(CARTPOLE, 3_000)
    print(f"CartPole-v1, in lockstep: return {lockstep.statistics.mean:.0f} after {lockstep.steps:,} steps")
    pendulum, result = learn_in_lockstep(PENDULUM, 4_000)
    print(f"Pendulum-v1, in lockstep: return {pendulum.statistics.mean:.0f} after {pendulum.steps:,} steps")
    cartpole = {"in lockstep": lockstep.episodes, f"live: {status.seconds:.0f} s": live.episodes}
    figure = draw(cartpole, pendulum.episodes, result.snapshot.params["policy"])
    print(f"figure: {figures.save(figure, 'ppo', directory)}")


if __name__ == "__main__":
    main()
