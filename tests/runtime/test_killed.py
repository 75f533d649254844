"""A process that is killed, by a signal that it cannot catch, and another one that goes on from its state."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np

import pamiq_jax as pj
from pamiq_jax.checkpoint import StateStore
from tests.runtime.fakes import PATIENCE
from tests.runtime.resume_process import SAVED_AFTER, SYSTEMS, bring, live_system
from tests.runtime.resuming import finish, phases, start

MODULE = "tests.runtime.resume_process"


def test_a_new_process_ends_where_one_without_an_interruption_does(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    for process in [start(programs, MODULE, "killed", name, tmp_path) for name in SYSTEMS]:
        assert finish(process) == (-signal.SIGKILL, "")
    for name in SYSTEMS:
        (state,) = StateStore(tmp_path / name).states()
        assert sum(state.facts["ticks"].values()) == SAVED_AFTER
        assert any(phase == "training" and chunk for phase, chunk in phases(tmp_path / name, state.number).values())
    resumed, straight = (
        finish(process)
        for process in [start(programs, MODULE, "resumed", tmp_path), start(programs, MODULE, "straight")]
    )
    assert resumed == straight
    assert [line.split()[0] for line in resumed[1].splitlines()] == list(SYSTEMS)


def test_a_live_run_that_is_killed_goes_on_from_what_was_acknowledged(tmp_path: Path) -> None:
    process = start(tmp_path / "programs", MODULE, "live", tmp_path / "run")
    assert process.stdout is not None
    try:
        number, version = map(int, process.stdout.readline().split())
        assert process.stdout.readline() == "beyond\n"
    finally:
        process.kill()
    assert finish(process)[0] == -signal.SIGKILL

    value = StateStore(tmp_path / "run").read(number)
    leaves: dict[str, Any] = value["leaves"]
    rows: list[pj.runtime.MetricRow] = []
    with pj.launch(live_system(), directory=tmp_path / "run", resume=True, on_metrics=rows.append) as run:
        run.wait_until_ready()
        assert run.restored is not None
        assert run.restored.state.number == number
        assert run.snapshot.version >= version
        assert run.status.buffers["numbers"].seen == 11  # what came after the save has left no trace
        bring(run, 30)
        run.wait_for_version(version + 20, PATIENCE)
        run.pause()
        learner, status = run.learner, run.status

    counted = [(int(row.metrics["first"]), int(row.metrics["last"])) for row in rows if row.trainer == "count"]
    assert counted == [(number, number + 4) for number in range(8, 28, 4)]  # rollouts overlap in one record
    assert [row.version for row in rows] == list(range(version + 1, version + 1 + len(rows)))
    assert learner.trainers["count"].runs == 2 + len(counted)
    for name, run_ in learner.trainers.items():
        fields = {field: leaves[f"['trainers'][{name!r}][{field!r}]"] for field in ("steps", "runs", "finished")}
        done = sum(row.trainer == name for row in rows)
        assert run_.runs == run_.finished == fields["runs"] + done
        assert run_.steps == fields["steps"] + done * (2 if name == "fit" else 1)
    assert_each_tick_once(learner.buffers["seen"], leaves["['interactions']['agent']['tick']"])
    assert status.buffers["seen"].seen == run.status.buffers["seen"].inserted + status.buffers["seen"].pending


def assert_each_tick_once(buffer: Any, saved: int) -> None:
    """Fail unless the world's ticks lie in the buffer one after the other, also where the process was killed."""
    ticks = buffer.state.records.data["observation"][: buffer.inserted, 0]
    assert buffer.inserted > saved > 0
    np.testing.assert_array_equal(ticks, np.arange(buffer.inserted))
    assert np.flatnonzero(buffer.state.records.is_first).tolist() == [0]
