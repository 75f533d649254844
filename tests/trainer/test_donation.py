from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pamiq_jax.errors import DonationError
from pamiq_jax.trainer import (
    TrainerState,
    buffer_pointers,
    check_not_donated,
    custom_trainer,
    explain_donation,
    gradient_trainer,
)
from pamiq_jax.trainer.addresses import check_alive

KEY = jax.random.key(0)


class Averaged(TrainerState[Any]):
    average: Any


def state_of_averaged() -> Averaged:
    return Averaged(jnp.zeros(3), (jnp.zeros(2),), jnp.int32(0), KEY, average=jnp.zeros(3))


def no_step(state: Any, batch: Any) -> Any:
    return state, {}


def reasons(trainer: Any, state: Any) -> dict[str, tuple[bool, str]]:
    return {row.leaf: (row.donated, row.reason) for row in explain_donation(trainer, state).rows}


def test_what_publish_hands_out_is_kept_and_so_are_parameters() -> None:
    trainer = custom_trainer(lambda key, params: state_of_averaged(), no_step, publish=lambda state: state.average)
    assert reasons(trainer, state_of_averaged()) == {
        ".params": (False, "a parameter, in a snapshot"),
        ".opt_state[0]": (True, "only the next step reads it"),
        ".step": (True, "only the next step reads it"),
        ".rng_key": (True, "only the next step reads it"),
        ".average": (False, "published as it is"),
    }


def test_what_publish_computes_from_may_be_donated() -> None:
    trainer = custom_trainer(lambda key, params: state_of_averaged(), no_step, publish=lambda state: state.average * 2)
    assert reasons(trainer, state_of_averaged())[".average"] == (True, "only the next step reads it")


def test_nothing_of_an_untraced_trainer_is_donated() -> None:
    trainer = custom_trainer(lambda key, params: state_of_averaged(), no_step, compiled=False)
    assert set(reasons(trainer, state_of_averaged()).values()) == {(False, "the trainer is not compiled")}


def test_a_run_of_several_chunks_writes_over_a_copy_of_what_is_published() -> None:
    trainer = custom_trainer(lambda key, params: state_of_averaged(), no_step, publish=lambda state: state.average)
    plan = explain_donation(trainer, state_of_averaged(), copies=True)
    copied = "copied as a run begins, the run's own until it ends"
    assert {row.leaf: row.reason for row in plan.rows if row.reason == copied}.keys() == {".params", ".average"}
    assert all(row.donated for row in plan.rows)


def test_a_run_that_is_saved_copies_nothing_and_neither_does_one_in_python() -> None:
    trainer = custom_trainer(lambda key, params: state_of_averaged(), no_step)
    plain = trainer._replace(compiled=False)
    plans = [
        explain_donation(trainer, state_of_averaged(), copies=True, donates=False),
        explain_donation(plain, state_of_averaged(), copies=True),
    ]
    assert [any(row.donated for row in plan.rows) for plan in plans] == [False, False]


def test_the_plan_reads_as_a_table() -> None:
    trainer = gradient_trainer(lambda w, batch, key: (w.sum(), {}), optax.sgd(0.1, momentum=0.9))
    state = trainer.init(KEY, jnp.zeros(300))
    plan = explain_donation(trainer, state)
    lines = str(plan).splitlines()
    assert lines[0] == ".params                     1,200 B  kept     a parameter, in a snapshot"
    assert lines[-1] == "donated: 1,212 of 2,412 bytes"
    assert str(explain_donation(trainer, jax.eval_shape(lambda: state))) == str(plan)


def test_donated_part_names_the_leaves() -> None:
    trainer = gradient_trainer(lambda w, batch, key: (w.sum(), {}), optax.sgd(0.1))
    state = trainer.init(KEY, jnp.zeros(3))
    donated = explain_donation(trainer, state).donated_part(state)
    assert donated.keys() == {".step", ".rng_key"}
    assert donated[".step"] is state.step


def test_pointers_of_arrays_on_several_devices_keys_and_others() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(jnp.arange(8.0), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x")))
    assert len(buffer_pointers(spread)) == 8
    assert len(buffer_pointers(jax.random.key(1))) == 1
    assert buffer_pointers([np.ones(3), 1.0, jnp.zeros((0,))]) == frozenset()


def test_a_published_array_among_the_donated_is_found() -> None:
    w, v = jnp.ones(3), jnp.ones(3)
    check_not_donated({"m": w}, {"opt": v})
    with pytest.raises(DonationError, match=r"would be deleted by the next step: \['a'\], \['b'\]; .*jnp.copy"):
        check_not_donated({"m": w, "n": v}, {"a": w, "b": jax.device_put(v, v.device), "c": jnp.ones(3)})


def test_a_deleted_published_array_is_found() -> None:
    w, v = jnp.ones(3), jnp.ones(3)
    check_alive({"m": w, "n": v, "numpy": np.ones(2)})
    w.delete()
    with pytest.raises(DonationError, match=r"step deleted published arrays: \['m'\]; take the parameters out of"):
        check_alive({"m": w, "n": v})
