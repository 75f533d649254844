"""A saved state that does not fit the system which is to go on from it: what the error says, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import CheckpointNotFoundError, StateMismatchError
from tests.runtime.fakes import SavedWorld, learning_system, python_trainer

SCHEDULE: dict[str, Any] = {"data": "seen", "batch_size": 1}


def system(*trainers: str, size: int = 3) -> pj.System:
    models = {f"model of {name}": pj.Model(jnp.zeros(size)) for name in trainers}
    schedules = {
        name: pj.Schedule(python_trainer(lambda number: None, model=f"model of {name}"), **SCHEDULE)
        for name in trainers
    }
    return learning_system(SavedWorld(), models={"policy": pj.Model(jnp.zeros(3)), **models}, trainers=schedules)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved")
    pj.run_lockstep(system("fit", "kept"), 2, directory=directory)
    return directory


def resumed(saved: Path, other: pj.System, **options: Any) -> str:
    with pytest.raises(StateMismatchError) as raised:
        pj.run_lockstep(other, 0, resume=saved, **options)
    return str(raised.value)


def test_the_trainers_come_first_then_some_of_the_leaves_and_what_launch_wants(saved: Path) -> None:
    lines = resumed(saved, system("learn", "kept")).splitlines()
    assert lines[1:5] == [
        "  model 'model of fit': stored, but not in this system",
        "  model 'model of learn': nothing of it is stored",
        "  trainer 'fit': stored, but not in this system",
        "  trainer 'learn': nothing of it is stored",
    ]
    assert lines[7] == "Leaf by leaf:"
    assert len(lines) == 1 + 4 + 2 + 1 + 8 + 1  # title, parts, remedy, "leaf by leaf", leaves, "and 34 more"
    assert lines[-1].startswith("  and ")
    rename = {"models": {"model of fit": "model of learn"}, "trainers": {"fit": "learn"}}
    assert f"rename={str(rename).replace(chr(39), chr(34))}, or give partial=True" in lines[6]
    pj.run_lockstep(system("learn", "kept"), 0, resume=saved, rename=rename)


def test_another_form_is_counted_by_part(saved: Path) -> None:
    lines = resumed(saved, system("fit", "kept", size=4)).splitlines()
    assert "  trainer 'kept': 1 leaf of another form" in lines
    assert any('rename={"trainers": {"old name": "new name"}}' in line for line in lines)


def test_a_path_without_states_is_refused_at_once(tmp_path: Path) -> None:
    for path, match in ((tmp_path / "nowhere", "nowhere does not exist, expected"), (tmp_path, "holds no saved state")):
        for begin in (pj.launch, lambda system, **options: pj.run_lockstep(system, 1, **options)):
            with pytest.raises(CheckpointNotFoundError, match=match):
                begin(learning_system(), resume=path)
