"""Gymnasium's CartPole-v1 as a system: eight poles, one policy, one trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pamiq_jax.conditions import min_new
from pamiq_jax.data import ring_buffer
from pamiq_jax.demo.networks import apply_network, init_network
from pamiq_jax.demo.ppo import PPOConfig, log_prob_of, ppo_trainer
from pamiq_jax.envs import GymnasiumVectorEnvironment
from pamiq_jax.envs.require import gymnasium
from pamiq_jax.runtime import Agent, Interaction, Model, Schedule, System
from pamiq_jax.types import Params, PyTree

SOLVED_RETURN = 475.0
"""CartPole-v1 counts as solved at this mean return over 100 episodes: Gymnasium's own threshold."""

TRAINER = "ppo"
BUFFER = "rollout"


@dataclass(frozen=True)
class CartPoleConfig:
    """What the demo depends on. The defaults solved ten of ten seeds.

    Attributes:
        num_envs: poles that are balanced at once.
        rollout_length: ticks that an update learns from.
        hidden_size: width of the two hidden layers of each network.
        ppo: of the trainer.
    """

    num_envs: int = 8
    rollout_length: int = 64
    hidden_size: int = 64
    ppo: PPOConfig = field(default_factory=PPOConfig)


def cartpole_system(config: CartPoleConfig, *, seed: int = 0) -> System:
    """Return the demo's system; launch it, or run it in lockstep.

    The agent plays without ever waiting. As soon as a rollout's worth of new ticks is there, the trainer does
    one update on the newest ones and publishes both networks.

    Args:
        config: sizes and rates.
        seed: of the networks' first parameters.

    Example:
        >>> system = cartpole_system(CartPoleConfig(num_envs=2))
        >>> system.trainers["ppo"].when
        min_new(64)
        >>> system.interaction.environment.close()
    """
    models = {name: Model(layers, _apply_published) for name, layers in init_models(config, seed).items()}
    environments = gymnasium.make_vec(
        "CartPole-v1", num_envs=config.num_envs, vectorization_mode=gymnasium.VectorizeMode.VECTOR_ENTRY_POINT
    )
    # One row more than a rollout is long: what is observed after its last step.
    rows = config.rollout_length + 1
    return System(
        models=models,
        buffers={BUFFER: ring_buffer(rows, sampling="in_order")},
        trainers={
            TRAINER: Schedule(
                ppo_trainer(config.ppo), data=BUFFER, batch_size=rows, steps=1, when=min_new(config.rollout_length)
            )
        },
        interaction=Interaction(Agent(act), GymnasiumVectorEnvironment(environments)),
    )


def init_models(config: CartPoleConfig, seed: int) -> dict[str, Params]:
    """Return the first parameters of "policy" and "value"; at first the policy hardly prefers any action.

    Args:
        config: sizes.
        seed: of the draws.
    """
    generator = np.random.default_rng(seed)
    hidden = (config.hidden_size, config.hidden_size)
    return {
        "policy": init_network((4, *hidden, 2), 0.01, generator),
        "value": init_network((4, *hidden, 1), 1.0, generator),
    }


def _apply_published(params: Params, observation: PyTree) -> jax.Array:
    return apply_network(params["network"], observation)


def act(
    params: Mapping[str, Params], carry: tuple[()], observation: jax.Array, rng_key: jax.Array
) -> tuple[tuple[()], jax.Array, dict[str, Any]]:
    """Return the carry, an action int32 `[N]` drawn from the policy, and its log probability `[N]`.

    Also whether the two models of the snapshot were made by different steps (`torn`, bool `[]`), which must
    never be. It is looked at with every single action, so that it can be counted and not only claimed.

    Args:
        params: the snapshot's models, each with the step that made it.
        carry: nothing.
        observation: float32 `[N, 4]`.
        rng_key: consumed.
    """
    logits = apply_network(params["policy"]["network"], observation)
    action = jax.random.categorical(rng_key, logits).astype(jnp.int32)
    log_prob = log_prob_of(jax.nn.log_softmax(logits), action)
    torn = params["policy"]["step"] != params["value"]["step"]
    return carry, action, {"log_prob": log_prob, "torn": torn}
