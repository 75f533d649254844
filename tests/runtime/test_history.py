"""What a run was is a value: gone back to, compared, gone on from."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.lifecycle import TrainerPhase
from tests.runtime.fakes import PATIENCE, learner, learning_system


def test_a_live_run_keeps_its_last_moments_whole() -> None:
    with pj.launch(learning_system(), history=3, strict=True) as run:
        run.wait_for_version(6, PATIENCE)
    moments = run.history
    versions = [moment.snapshot.version for moment in moments]
    assert len(moments) == 3
    assert versions == list(range(versions[0], versions[0] + 3))
    for moment in moments:
        fit = moment.trainers["fit"]
        assert fit.phase is TrainerPhase.WAITING
        assert fit.steps == 4 * moment.snapshot.version
        assert int(fit.state.step) == fit.steps  # nothing of it was donated
        np.testing.assert_array_equal(fit.state.params["policy"], moment.snapshot.params["policy"])
    assert repr(moments[0]).startswith("Moment(")
    assert moments[0].distance(moments[0]) == {"policy": 0.0}
    assert moments[0].distance(moments[2])["policy"] > 0


def test_without_being_asked_nothing_is_kept() -> None:
    with pj.launch(learning_system()) as run:
        run.wait_for_version(1, PATIENCE)
    assert run.history == ()


def test_lockstep_goes_on_from_any_moment_and_can_do_so_again() -> None:
    with pj.launch(learning_system(), history=2) as run:
        run.wait_for_version(3, PATIENCE)
    moment = run.history[0]
    first, second = (pj.run_lockstep(learning_system(), 12, start=moment, history=1) for _ in range(2))
    assert first.learner.trainers["fit"].steps > moment.trainers["fit"].steps
    assert first.snapshot.version > moment.snapshot.version
    jax.tree.map(
        np.testing.assert_array_equal,
        first.learner.trainers["fit"].state.params,
        second.history[-1].trainers["fit"].state.params,
    )
    nothing = pj.run_lockstep(learning_system(), 0, start=moment)
    np.testing.assert_array_equal(nothing.snapshot.params["policy"], moment.snapshot.params["policy"])
    for kept, now in zip(
        jax.tree.leaves(moment.trainers["fit"].state.opt_state),
        jax.tree.leaves(nothing.learner.trainers["fit"].state.opt_state),
        strict=True,
    ):
        np.testing.assert_array_equal(kept, now)


def test_a_moment_of_another_system_is_refused() -> None:
    moment = pj.run_lockstep(learning_system(), 6, history=1).history[-1]
    schedule = pj.Schedule(learner(), data="seen", batch_size=4)
    with pytest.raises(InvalidValueError, match=r"start is \['fit'\], expected a moment of the trainers \['other'\]"):
        pj.run_lockstep(learning_system(trainers={"other": schedule}), 1, start=moment)
    for wrong in (-1, 1.5):
        with pytest.raises(InvalidValueError, match=r"launch\(history\) is"):
            pj.launch(learning_system(), history=wrong)  # pyright: ignore[reportArgumentType]


def test_what_is_no_moment_is_refused() -> None:
    result = pj.run_lockstep(learning_system(), 6, history=1)
    moment = result.history[-1]
    for wrong, problem in (
        (result.history, "'tuple', .*history.-1."),
        (result.snapshot, "'Snapshot', .* no trainers'"),
    ):
        with pytest.raises(InvalidValueError, match=rf"run_lockstep\(start\) is {problem}"):
            pj.run_lockstep(learning_system(), 1, start=wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidValueError, match=r"Moment.distance\(other\) is 'int', expected a Moment; take one of"):
        moment.distance(3)  # pyright: ignore[reportArgumentType]
    other = moment._replace(snapshot=pj.Snapshot.of({"other": np.zeros(3)}))
    with pytest.raises(InvalidValueError, match=r"distance\(other\) is \['other'\], expected a moment of .*'policy'"):
        moment.distance(other)
