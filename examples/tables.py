"""What examples reach with several seeds, as a table: `python -m examples curiosity --seeds 0-4`."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np

import pamiq_jax as pj
from examples import curiosity, dreamer, forward_dynamics, ppo
from pamiq_jax.envs import GymnasiumVectorEnvironment


class Experiment(NamedTuple):
    """What is measured of an example.

    Attributes:
        measure: `(seed, ticks) -> numbers by column`, those of the same thing done at random among them.
        ticks: by default.
        digits: after the point.
    """

    measure: Callable[[int, int], dict[str, float]]
    ticks: int
    digits: int = 0


def measure_curiosity(seed: int, ticks: int) -> dict[str, float]:
    """Return the share of cells, in %, that curious cars have visited, and random ones."""
    visits = curiosity.Visits()
    pj.run_lockstep(curiosity.make_system(seed), ticks, seed=seed, on_interaction=visits)
    random = curiosity.act_at_random(ticks, seed=seed)
    return {"cells visited, %": 100 * visits.shares()[-1], "at random, %": 100 * random.shares()[-1]}


def measure_ppo(seed: int, ticks: int) -> dict[str, float]:
    """Return mean returns of CartPole's last twenty episodes: learned in lockstep, live within a minute, at random."""
    lockstep, _ = ppo.learn_in_lockstep(ppo.CARTPOLE, ticks, seed=seed)
    live, status = ppo.learn_live(ppo.CARTPOLE, goal=475.0, seed=seed)
    return {
        "return in lockstep": lockstep.statistics.mean,
        "return live": live.statistics.mean,
        "seconds live": status.seconds,
        "return at random": random_return(ppo.CARTPOLE, seed),
    }


def measure_pendulum(seed: int, ticks: int) -> dict[str, float]:
    """Return mean returns of Pendulum's last twenty episodes, learned in lockstep and at random."""
    lockstep, _ = ppo.learn_in_lockstep(ppo.PENDULUM, ticks, seed=seed)
    return {"return": lockstep.statistics.mean, "return at random": random_return(ppo.PENDULUM, seed)}


def random_return(task: ppo.Task, seed: int) -> float:
    """Return the mean return of the last twenty episodes of an agent that draws its actions evenly."""
    environment = GymnasiumVectorEnvironment(gymnasium.make_vec(task.name, num_envs=task.num_envs))
    space, returns = environment.spec.action, ppo.Returns(task.num_envs)
    is_discrete = np.issubdtype(space.dtype, np.integer)

    def act(params: Any, carry: Any, observation: jax.Array, rng_key: jax.Array) -> Any:
        if is_discrete:
            return carry, jax.random.randint(rng_key, space.shape, 0, task.distribution.outputs, space.dtype), {}
        return carry, jax.random.uniform(rng_key, space.shape, space.dtype, -2.0, 2.0), {}

    with contextlib.closing(environment):
        system = pj.System(models={}, interaction=pj.Interaction(pj.Agent(act), environment))
        pj.run_lockstep(system, 450, seed=seed, on_interaction=returns)
    return returns.statistics.mean


def measure_dreamer(seed: int, ticks: int) -> dict[str, float]:
    """Return the height of the tip, from -1 to 1, in new lives: after so many ticks, and pushed at random.

    Beside it how far the wish comes true in others, with what was learned and before. The world is learned from 1,000
    random steps before that.
    """
    first = pj.run_lockstep(forward_dynamics.make_system(seed), 1_000, seed=seed).snapshot.params["dynamics"]
    system = dreamer.make_system(first, steps=ticks - 100, seed=seed)
    snapshot = pj.run_lockstep(system, ticks, seed=seed).snapshot
    learned = {name: snapshot.params[name] for name in ("dynamics", "policy")}
    agents = {"height": (dreamer.agent, learned), "height at random": (forward_dynamics.explorer, {"dynamics": first})}
    untrained = {"dynamics": first, "policy": dreamer.init_networks(seed)["policy"]}
    heights = {name: _height(agent, params, seed) for name, (agent, params) in agents.items()}
    return {**heights, "wish": lived_wish(learned), "wish untrained": lived_wish(untrained)}


def lived_wish(params: Mapping[str, Any]) -> float:
    """Return how far the dreamer's wish is fulfilled in four real lives of ten seconds, which nobody learns from."""
    lives = [forward_dynamics.live(dreamer.agent, params, 200, seed=seed) for seed in range(100, 104)]
    return float(np.mean([dreamer.wish(life["seen"]) for life in lives]))


def _height(agent: pj.Agent[Any], params: Mapping[str, Any], seed: int) -> float:
    lives = [forward_dynamics.live(agent, params, 200, seed=1_000 * (seed + 1) + number) for number in range(4)]
    return float(np.mean([life["seen"][100:, 0] for life in lives]))


EXPERIMENTS = {
    "curiosity": Experiment(measure_curiosity, 3_000),
    "dreamer": Experiment(measure_dreamer, 1_100, digits=2),
    "ppo": Experiment(measure_ppo, 3_000),
    "pendulum": Experiment(measure_pendulum, 4_000),
}
"""By example; "pendulum" is the second task of `ppo`."""


def lines(experiment: Experiment, seeds: Sequence[int], ticks: int | None = None) -> Iterator[str]:
    """Yield a Markdown table line by line, each seed's as soon as it is there, the medians in the end.

    Args:
        experiment: what to measure.
        seeds: at least one.
        ticks: other than the experiment's own.
    """
    results: list[dict[str, float]] = []
    for seed in seeds:
        started = time.perf_counter()
        result = experiment.measure(seed, experiment.ticks if ticks is None else ticks)
        results.append({**result, "wall seconds": time.perf_counter() - started})
        if len(results) == 1:
            yield _row("seed", results[0])
            yield "|---:" * (len(results[0]) + 1) + "|"
        yield _row(str(seed), _written(results[-1].values(), experiment.digits))
    yield _row(
        "median",
        _written(map(statistics.median, zip(*(row.values() for row in results), strict=True)), experiment.digits),
    )


def _written(values: Any, digits: int) -> list[str]:
    *numbers, seconds = values
    return [*(f"{number:.{digits}f}" for number in numbers), f"{seconds:.0f}"]


def _row(first: str, cells: Any) -> str:
    return f"| {' | '.join([first, *cells])} |"
