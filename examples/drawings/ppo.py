"""The figure of `examples/ppo.py`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from examples import figures
from pamiq_jax.demo.networks import apply_network

type Episodes = list[tuple[int, float]]
"""Of each finished episode: environment steps until its end, and its return."""


def draw(cartpole: dict[str, Episodes], pendulum: Episodes, policy: Any) -> Any:
    """Return a figure of how returns grow, and of what was learned in the end.

    Args:
        cartpole: runs by name.
        pendulum: a run.
        policy: what it has learned.
    """
    figure = figures.new_figure(
        "PPO: one loss, a discrete and a continuous task",
        "each dot is an episode, lines are means of twenty; on the right the torque that the policy applies in every "
        "state, and three swings up",
        width=11.5,
        height=4.4,
    )
    left, middle, right = figure.subplots(1, 3)
    for (name, episodes), color in zip(cartpole.items(), (figures.BLUE, figures.ORANGE), strict=True):
        draw_returns(left, episodes, color, name)
    left.set(title="CartPole-v1: return", ylim=(0, 520))
    left.legend(frameon=False, loc="lower right", labelcolor="linecolor", handlelength=0, prop={"weight": "bold"})
    draw_returns(middle, pendulum, figures.BLUE, "in lockstep")
    middle.set(title="Pendulum-v1: return", ylim=(-1750, 30))
    for axes in (left, middle):
        figures.tidy(axes)
        axes.set(xlabel="environment steps", xlim=(0, None))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k")
    bar = figure.colorbar(draw_policy(right, policy), ax=right, label="torque", ticks=[-2, -1, 0, 1, 2])
    bar.outline.set_visible(False)
    return figure


def draw_returns(axes: Any, episodes: Episodes, color: str, label: str) -> None:
    """Draw a dot for each episode, and a line through the mean of the last twenty."""
    steps, values = np.array(episodes).T
    means = np.array([values[max(0, end - 20) : end].mean() for end in range(1, len(values) + 1)])
    is_last = np.append(steps[1:] > steps[:-1], True)  # of those that end at once
    axes.plot(steps, values, ".", color=color, alpha=0.35, markersize=5, mew=0)
    axes.plot(steps[is_last], means[is_last], color=color, linewidth=2, label=label)


def draw_policy(axes: Any, policy: Any) -> Any:
    """Draw the torque in every state as a color, and how three pendulums swing up; return the colors."""
    angles, velocities = np.meshgrid(np.linspace(-np.pi, np.pi, 201), np.linspace(-8, 8, 161))
    observations = np.stack([np.cos(angles), np.sin(angles), velocities], -1).astype(np.float32)
    torque = np.clip(apply_network(policy, observations)[..., 0], -2, 2)
    style: Any = {"origin": "lower", "aspect": "auto", "cmap": "RdBu_r", "alpha": 0.75, "vmin": -2, "vmax": 2}
    colors = axes.imshow(torque, extent=(-np.pi, np.pi, -8, 8), **style)
    for angle, velocity in ((np.pi, 0.5), (-2.2, -4.0), (1.2, 3.0)):
        line = wrapped(swing(policy, angle, velocity))
        axes.plot(*line.T, color="black", linewidth=1.3)
        axes.plot(*line[0], "o", color="white", mec="black", markersize=6, clip_on=False, zorder=3)
    axes.plot(0, 0, "*", color="gold", mec="black", mew=0.6, markersize=13)
    axes.set(title="Pendulum-v1: torque", xlabel="angle, 0 being up", ylabel="angular velocity")
    axes.set(xticks=[-np.pi, 0, np.pi], xticklabels=[r"$-\pi$", "0", r"$\pi$"])
    figures.tidy(axes, grid=None)
    return colors


def wrapped(states: np.ndarray) -> np.ndarray:
    """Return states with angles from -π to π, and a gap where the line would run back across the picture."""
    angles = (states[:, 0] + np.pi) % (2 * np.pi) - np.pi
    jumps = np.flatnonzero(np.abs(np.diff(angles)) > np.pi) + 1
    return np.insert(np.stack([angles, states[:, 1]], axis=1), jumps, np.nan, axis=0)


def swing(policy: Any, angle: float, velocity: float, ticks: int = 200) -> np.ndarray:
    """Return angles and velocities `[ticks, 2]` of a pendulum that starts there and is moved by the policy's mean."""
    environment = gymnasium.make("Pendulum-v1")
    environment.reset(seed=0)
    pendulum: Any = environment.unwrapped
    pendulum.state = np.array([angle, velocity])
    states = [pendulum.state]
    for _ in range(ticks - 1):
        angle, velocity = states[-1]
        observation = np.array([np.cos(angle), np.sin(angle), velocity], np.float32)
        environment.step(np.asarray(apply_network(policy, observation))[:1])
        states.append(pendulum.state)
    environment.close()
    return np.array(states)
