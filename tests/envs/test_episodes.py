from __future__ import annotations

import math

import numpy as np

from pamiq_jax.envs import EpisodeStatistics


def feedback(reward: float, terminated: bool = False, truncated: bool = False) -> dict[str, np.ndarray]:
    return {"reward": np.float32(reward), "terminated": np.bool_(terminated), "truncated": np.bool_(truncated)}


def test_nothing_finished_has_no_mean() -> None:
    statistics = EpisodeStatistics.empty().add(feedback(1.0))
    assert math.isnan(statistics.mean)
    assert math.isnan(statistics.best_mean)
    assert (statistics.finished, statistics.is_full) == (0, False)


def test_terminated_and_truncated_both_finish_an_episode() -> None:
    statistics = EpisodeStatistics.empty(window=2)
    for tick in (feedback(2.0, terminated=True), feedback(0.0), feedback(1.0), feedback(3.0, truncated=True)):
        statistics = statistics.add(tick)
    assert statistics.recent == (2.0, 4.0)
    assert statistics.running.tolist() == [0.0]
    assert (statistics.mean, statistics.best_mean, statistics.is_full) == (3.0, 3.0, True)


def test_the_window_forgets_the_oldest_and_the_best_mean_stays() -> None:
    statistics = EpisodeStatistics.empty(window=2)
    for episode_return in (8.0, 6.0, 2.0):
        statistics = statistics.add(feedback(episode_return, terminated=True))
    assert statistics.recent == (6.0, 2.0)
    assert (statistics.mean, statistics.best_mean, statistics.finished) == (4.0, 7.0, 3)


def test_adding_leaves_the_value_before_as_it_was() -> None:
    before = EpisodeStatistics.empty(num_envs=2)
    flags = np.zeros(2, np.bool_)
    before.add({"reward": np.ones(2, np.float32), "terminated": ~flags, "truncated": flags})
    assert before.running.tolist() == [0.0, 0.0]
    assert before.recent == ()


def test_environments_that_end_in_one_tick_each_count() -> None:
    both = np.ones(2, np.bool_)
    statistics = EpisodeStatistics.empty(num_envs=2).add(
        {"reward": np.array([1.0, 5.0]), "terminated": both, "truncated": both}
    )
    assert (statistics.finished, statistics.recent) == (2, (1.0, 5.0))
