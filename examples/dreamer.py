"""A policy and its value that are learned in dreams: inside the forward dynamics, which they only read.

From moments that were really lived, the policy acts on in the model's imagination, and what the model says will be seen
there is judged by a wish: that the pendulum stands up, and stands still. All of it can be differentiated, so the policy
follows the gradient of its imagined returns through the model, and the value learns to foresee them. The two have an
optimizer and a schedule each. To this trainer the model is a constant; that it stays true where the policy leads is
the work of another one, which can be left out.

Dreamer: Hafner et al. 2020, arXiv:1912.01603. Run: `python -m examples.dreamer`
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from examples import figures, forward_dynamics
from examples.drawings.dreamer import draw
from examples.forward_dynamics import HIDDEN, WINDOW, dynamics, learn_dynamics, live, pendulum
from pamiq_jax.data import sequence_buffer
from pamiq_jax.demo.networks import apply_network, init_network

CAPACITY, HORIZON, DISCOUNT, LAMBDA, NOISE, STILLNESS = 5_000, 20, 0.97, 0.95, 0.2, 10.0

# --- Dreaming, and what it is good for.


def features(hidden: jax.Array, seen: jax.Array) -> jax.Array:
    """Return what policy and value know of a moment `[..., H + 2]`."""
    return jnp.concatenate([hidden, seen], axis=-1)


def choose(policy: Any, known: jax.Array, noise: jax.Array) -> jax.Array:
    """Return a torque `[..., 1]` within the pendulum's limits."""
    return 2.0 * jnp.tanh(apply_network(policy, known) + NOISE * noise)


def dream(params: Mapping[str, Any], hidden: jax.Array, seen: jax.Array, noise: jax.Array) -> Any:
    """Return what the policy knows `[T + 1, B, H + 2]` and sees `[T + 1, B, 2]` in dreams from now on.

    Args:
        params: "dynamics" and "policy".
        hidden: `[B, H]`, now.
        seen: `[B, 2]`, now.
        noise: `[T, B, 1]`, of the actions.
    """

    def step(state: Any, noise: jax.Array) -> Any:
        following = dynamics.apply(params["dynamics"], *state, choose(params["policy"], features(*state), noise))
        return following, following

    now = (hidden, seen)
    _, ahead = jax.lax.scan(step, now, noise)
    hiddens, seens = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), now, ahead)
    return features(hiddens, seens), seens


def wish(seen: jax.Array) -> jax.Array:
    """Return the reward of each step `[T, ...]` between what is seen `[T + 1, ...]`: stand up, and stand still."""
    return seen[1:, ..., 0] - STILLNESS * jnp.sum((seen[1:] - seen[:-1]) ** 2, axis=-1)


def lambda_returns(rewards: jax.Array, values: jax.Array) -> jax.Array:
    """Return `[T, B]`: discounted rewards, continued at each step by the value in part and by the next return in part.

    Args:
        rewards: `[T, B]`, for what follows each step.
        values: `[T, B]`, of what follows each step.
    """

    def backward(following: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, value = row
        now = reward + DISCOUNT * ((1 - LAMBDA) * value + LAMBDA * following)
        return now, now

    return jax.lax.scan(backward, values[-1], (rewards, values), reverse=True)[1]


def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return minus the imagined returns, for the policy, plus how wrong the value was about them, for the value.

    Args:
        params: "policy" and "value", which are trained, and "dynamics", which are constants here.
        batch: moments, "hidden" `[B, H]` and "seen" `[B, 2]`.
        rng_key: consumed.
    """
    noise = jax.random.normal(rng_key, (HORIZON, batch["seen"].shape[0], 1))
    known, seen = dream(params, batch["hidden"], batch["seen"], noise)
    fixed_value = jax.lax.stop_gradient(params["value"])  # the policy must not be praised by bending its judge
    returns = lambda_returns(wish(seen), apply_network(fixed_value, known[1:])[..., 0])
    judged = apply_network(params["value"], jax.lax.stop_gradient(known[:-1]))[..., 0]
    policy_loss = -jnp.mean(returns)
    value_loss = jnp.mean((judged - jax.lax.stop_gradient(returns)) ** 2)
    return policy_loss + value_loss, {"dreamed_height": jnp.mean(seen[1:, ..., 0]), "value_loss": value_loss}


# --- The system.


def make_trainer(steps: int) -> pj.Trainer[Any, Any]:
    """Return a trainer of policy and value that is done after so many steps: each follows a schedule of its own."""
    policy_rate = optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps)
    value_rate = optax.linear_schedule(3e-3, 3e-4, steps)
    trainer = pj.gradient_trainer(
        loss_fn, optax.adam(policy_rate), trains=("policy", "value"), reads=("dynamics",), publishes=("policy",)
    )
    return pj.clip_gradients(pj.with_optimizers(trainer, {"value": optax.adam(value_rate)}), 10.0)


def act(params: Mapping[str, Any], hidden: jax.Array, observation: jax.Array, rng_key: jax.Array) -> Any:
    """Act as in a dream, with the model's carry following what really happens."""
    seen = observation[:2]
    torque = choose(params["policy"], features(hidden, seen), jax.random.normal(rng_key, (1,)))
    following, _ = dynamics.apply(params["dynamics"], hidden, seen, torque)
    return following, torque, {"seen": seen, "hidden": hidden}


agent = pj.Agent(act, init=lambda rng_key: jnp.zeros(HIDDEN))


def init_networks(seed: int) -> dict[str, Any]:
    """Return the first "policy", which hardly pushes, and the first "value"."""
    generator, widths = np.random.default_rng(seed), (HIDDEN + 2, 64, 64, 1)
    return {"policy": init_network(widths, 0.01, generator), "value": init_network(widths, 1.0, generator)}


def make_system(world: Any, *, steps: int = 3_000, learns_world: bool = True, seed: int = 0) -> pj.System:
    """Return a system that lives with one pendulum and learns in dreams of it.

    Args:
        world: parameters of forward dynamics, from `forward_dynamics`.
        steps: of the dreamer's training, after which its learning rates end.
        learns_world: whether another trainer improves the world where the policy leads.
        seed: of policy and value.
    """
    networks = init_networks(seed)
    dreamer = pj.Schedule(
        make_trainer(steps), data="moments", batch_size=64, steps=8, when=pj.min_size(64) & pj.min_new(8)
    )
    learn_on = learn_dynamics(1e-3, when=pj.min_size(2 * WINDOW) & pj.min_new(24))
    return pj.System(
        models={
            "dynamics": pj.Model(world, train=learns_world),
            "policy": pj.Model(networks["policy"], apply_network),
            "value": pj.Model(networks["value"], infer=False),
        },
        buffers={
            "moments": pj.ring_buffer(CAPACITY),
            "life": sequence_buffer(CAPACITY, window=WINDOW, carry="hidden"),
        },
        trainers={"dreamer": dreamer, **({"dynamics": learn_on} if learns_world else {})},
        interaction=pj.Interaction(agent, pendulum()),
    )


# --- What it has learned.


def dreamed(params: Mapping[str, Any], life: Mapping[str, Any], moment: int, steps: int) -> Any:
    """Return what would be seen `[steps + 1, 2]` from a moment of a life on, as far as the dream goes."""
    hidden, seen = jnp.asarray(life["hidden"][moment]), jnp.asarray(life["seen"][moment])
    return jax.device_get(jax.jit(dream)(params, hidden, seen, jnp.zeros((steps, 1)))[1])


def main(directory: Path = figures.RUNS) -> None:
    """Get to know a world in 4,000 random steps, live in it for 4,000 more, and draw what was learned."""
    world = pj.run_lockstep(forward_dynamics.make_system(), 4_000).snapshot.params["dynamics"]
    rewards: list[float] = []
    result = pj.run_lockstep(
        make_system(world),
        4_000,
        train_ticks=2,
        on_interaction=lambda report: rewards.append(report.feedback["reward"]),
    )
    params = {name: result.snapshot.params[name] for name in ("dynamics", "policy")}
    lives = [live(agent, params, 200, seed=seed) for seed in range(12)]
    upright = np.mean([life["seen"][100:, 0] for life in lives])
    print(f"reward of a step: {np.mean(rewards[:500]):.2f} at first, {np.mean(rewards[-500:]):.2f} in the end")
    print(f"height of the tip after 5 seconds, in {len(lives)} new lives: {upright:.3f} of 1")
    lowest = min(lives, key=lambda life: life["seen"][:10, 0].mean())
    dreams = {moment: dreamed(params, lowest, moment, 30) for moment in (10, 45, 80, 115)}
    figure = draw(rewards, lowest["seen"], dreams, lives)
    print(f"figure: {figures.save(figure, 'dreamer', directory)}")


if __name__ == "__main__":
    main()
