"""A live run is saved while it acts and trains, and a later one goes on from there."""

from __future__ import annotations

from pathlib import Path

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore
from tests.runtime.fakes import PATIENCE, SavedWorld, learning_system


def test_counters_versions_and_the_world_go_on(tmp_path: Path) -> None:
    with pj.launch(learning_system(SavedWorld()), directory=tmp_path) as run:
        run.wait_for_version(2, PATIENCE)
        info = run.save(PATIENCE)
        assert run.status.saves.written == 1
    assert StateStore(tmp_path).verify()[0].problems == ()
    with pj.launch(learning_system(SavedWorld()), directory=tmp_path, resume=True) as run:
        run.wait_until_ready()
        assert run.restored is not None
        assert run.restored.state.number == info.number
        assert run.snapshot.version >= info.facts["version"] >= 2
        run.wait_for_version(info.facts["version"] + 1, PATIENCE)
        run.pause()
        assert run.learner.trainers["fit"].steps >= info.facts["steps"]["fit"]
        assert run.save(PATIENCE).number == info.number + 1  # while it is paused, too


def test_a_policy_saves_by_itself(tmp_path: Path) -> None:
    with pj.launch(learning_system(), directory=tmp_path, save=pj.every_versions(1), strict=True) as run:
        version = run.wait_for_version(3, PATIENCE).version
        run.save(PATIENCE)
        assert run.status.saves.newest is not None
        assert run.status.saves.newest.facts["version"] >= version
