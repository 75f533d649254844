"""Environment steps per second of `run_scanned`, against a hand-written scan of the same agent, poles and trainer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import pamiq_jax as pj
from benchmarks.harness import alternate, report
from examples import cartpole
from pamiq_jax.envs import JaxEnvironment
from pamiq_jax.runtime.origin import begin
from pamiq_jax.runtime.scanned import ScannedRun

ROLLOUT, CAPACITY, BATCH, STEPS = cartpole.ROLLOUT, 1024, 16, 4


def _environment(poles: int) -> JaxEnvironment:
    return JaxEnvironment(
        cartpole.reset,
        cartpole.step,
        cartpole.Physics(),
        action=np.int32(0),
        num_envs=poles,
        autoreset=True,
        info=("has_fallen",),
    )


def _replay_system(poles: int) -> pj.System:
    # What it learns from ticks in any order makes no sense; it costs what a step on a replay buffer costs.
    trainer = pj.clip_gradients(pj.gradient_trainer(cartpole.loss_fn, optax.adam(1e-2)), 1.0)
    schedule = pj.Schedule(trainer, data="replay", batch_size=BATCH, steps=STEPS, when=pj.min_new(ROLLOUT))
    networks = cartpole.init_networks(jax.random.key(0))
    return pj.System(
        models={name: pj.Model(params) for name, params in networks.items()},
        buffers={"replay": pj.ring_buffer(CAPACITY)},
        trainers={"t": schedule},
        interaction=pj.Interaction(pj.Agent(cartpole.act), _environment(poles)),
    )


def _tick(poles: int) -> Callable[..., Any]:
    """Return what a competent person writes: one tick of all poles, and what it leaves to learn from."""
    physics = cartpole.Physics()

    def one(key: jax.Array, cart: Any, action: jax.Array) -> Any:
        step_key, reset_key = jax.random.split(key)
        seen, moved, reward, done, info = cartpole.step(step_key, cart, action, physics)
        first = cartpole.reset(reset_key, physics)
        observation, cart = jax.tree.map(lambda new, old: jnp.where(done, new, old), first, (seen, moved))
        return observation, cart, (seen, jnp.float32(reward), done, info["has_fallen"])

    def tick(params: Any, carry: Any, _: None) -> Any:
        observation, carts, key = carry
        key, act_key, step_key = jax.random.split(key, 3)
        _, action, _ = cartpole.act(params, (), observation, act_key)
        following, carts, (seen, reward, done, has_fallen) = jax.vmap(one)(
            jax.random.split(step_key, poles), carts, action
        )
        ticked = {
            "observation": observation,
            "action": action,
            "reward": reward,
            "done": done,
            "has_fallen": has_fallen,
            "next_observation": seen,
        }
        return (following, carts, key), ticked

    return tick


def _first(poles: int) -> Any:
    params = cartpole.init_networks(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), poles)
    observation, carts = jax.vmap(cartpole.reset, in_axes=(0, None))(keys, cartpole.Physics())
    return params, (observation, carts, jax.random.key(2))


def _update(tx: Any, params: Any, opt_state: Any, batch: Any, key: jax.Array) -> Any:
    (loss, metrics), gradients = jax.value_and_grad(cartpole.loss_fn, has_aux=True)(params, batch, key)
    updates, opt_state = tx.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, {"loss": loss, **metrics}


def bare_rollouts(poles: int, rounds: int) -> Callable[[], float]:
    """Return what takes the seconds of a hand-written run on whole rollouts, without any buffer."""
    tx, tick = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)), _tick(poles)

    def one_round(carry: Any, _: None) -> Any:
        params, opt_state, world = carry
        world, rollout = jax.lax.scan(lambda world, _: tick(params, world, None), world, length=ROLLOUT)
        params, opt_state, metrics = _update(tx, params, opt_state, rollout, world[2])
        return (params, opt_state, world), metrics

    params, world = _first(poles)
    return _timed(one_round, (params, tx.init(params), world), rounds)


def bare_replay(poles: int, rounds: int) -> Callable[[], float]:
    """Return what takes the seconds of a hand-written run with a ring of ticks and batches drawn from it."""
    tx, tick = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)), _tick(poles)

    def one_round(carry: Any, number: jax.Array) -> Any:
        params, opt_state, world, ring = carry
        world, ticks = jax.lax.scan(lambda world, _: tick(params, world, None), world, length=ROLLOUT)
        start = (number * ROLLOUT) % CAPACITY
        ring = jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 0), ring, ticks)
        size = jnp.minimum((number + 1) * ROLLOUT, CAPACITY)

        def learn(carry: Any, key: jax.Array) -> Any:
            places = jax.random.randint(key, (BATCH,), 0, size)
            params, opt_state, metrics = _update(tx, *carry, jax.tree.map(lambda rows: rows[places], ring), key)
            return (params, opt_state), metrics

        keys = jax.random.split(jax.random.fold_in(world[2], 1), STEPS)
        (params, opt_state), metrics = jax.lax.scan(learn, (params, opt_state), keys)
        return (params, opt_state, world, ring), jax.tree.map(jnp.mean, metrics)

    params, world = _first(poles)
    form = jax.eval_shape(tick, params, world, None)[1]
    ring = jax.tree.map(lambda leaf: jnp.zeros((CAPACITY, *leaf.shape), leaf.dtype), form)
    return _timed(one_round, (params, tx.init(params), world, ring), rounds)


def _timed(one_round: Callable[..., Any], carry: Any, rounds: int) -> Callable[[], float]:
    numbers = jnp.arange(rounds)
    program = jax.jit(lambda carry: jax.lax.scan(one_round, carry, numbers)).lower(carry).compile()

    def seconds() -> float:
        started = time.perf_counter()
        jax.block_until_ready(program(carry))
        return time.perf_counter() - started

    return seconds


def scanned(system: pj.System, rounds: int) -> Callable[[], float]:
    """Return what takes the seconds of the same with `run_scanned`, compiled once."""
    clock = pj.VirtualClock()
    run = ScannedRun(begin(pj.compile_system(system), None, clock), clock, 0).compile(rounds, ROLLOUT, 1, repeats=True)
    return lambda: run().seconds


def measure(*, quick: bool) -> list[dict[str, object]]:
    """Return a row for whole rollouts and one for a replay buffer, with few poles and with many."""
    rows: list[dict[str, object]] = []
    cases = (("rollout", cartpole.make_system, bare_rollouts), ("replay", _replay_system, bare_replay))
    for poles, rounds in ((64, 60 if quick else 600), (1024, 6 if quick else 60)):
        for kind, make_system, bare in cases:
            steps = rounds * ROLLOUT * poles
            ours, reference = scanned(make_system(poles), rounds), bare(poles, rounds)
            comparison = alternate(
                lambda ours=ours, steps=steps: steps / ours(),
                lambda reference=reference, steps=steps: steps / reference(),
                runs=5 if quick else 11,
            )
            more: dict[str, object] = {"data": kind, "poles": poles}
            name = "hand-written lax.scan"
            rows.append(report("pure_jax", comparison, reference_name=name, unit="steps/s", goal=">= 0.95", more=more))
    return rows
