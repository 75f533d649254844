"""New names for the parts of a stored system: where they are put, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

import pamiq_jax as pj
from pamiq_jax.errors import InvalidValueError
from pamiq_jax.runtime.renaming import Renaming
from tests.runtime.fakes import assert_equal_trees, learning_system

LEAVES = {
    "['models']['frozen']['w']": 0,
    "['snapshot']['params']['judge']['w']": 0,
    "['trainers']['fit']['state'].params['judge']['w']": 0,
    "['trainers']['fit']['state'].params['policy']['judge']": 0,
    "['trainers']['more']['updates']": 0,
    "['buffers']['seen']['inserted']": 0,
    "['buffers']['other']['inserted']": 0,
    "['interactions']['agent']['tick']": 0,
    "['interactions']['second']['tick']": 0,
}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            ".opt_state.inner_states['judge'].inner_state[0].mu['judge']['w']",
            "['critic'].inner_state[0].mu['critic']['w']",
        ),
        (".opt_state.inner_states['rest'].inner_state[0].mu['policy']['judge']", "['policy']['judge']"),
        (".params['judge']['judge']", ".params['critic']['judge']"),
        (".opt_state[0].mu['policy']['judge']", ".mu['policy']['judge']"),
        (".extra['targets']['judge']['w']", ".extra['targets']['critic']['w']"),
    ],
)
def test_a_model_is_renamed_where_it_is_named_and_not_within_another(old: str, new: str) -> None:
    renamed = Renaming({"models": {"judge": "critic"}}, LEAVES).leaf(f"['trainers']['fit']['state']{old}")
    assert renamed.endswith(new)


@pytest.mark.parametrize(
    ("kind", "old", "stored"),
    [
        ("models", "judge", "policy"),
        ("models", "judge", "frozen"),
        ("trainers", "fit", "more"),
        ("buffers", "seen", "other"),
        ("interactions", "agent", "second"),
    ],
)
def test_the_name_of_what_is_stored_too_is_refused(kind: str, old: str, stored: str) -> None:
    with pytest.raises(
        InvalidValueError, match=rf"rename\['{kind}'\] is .*{stored!r}.* would both be {stored!r}; give"
    ):
        Renaming({kind: {old: stored}}, LEAVES)
    with pytest.raises(InvalidValueError, match="would both be 'x'"):
        Renaming({kind: {old: "x", stored: "x"}}, LEAVES)
    swapped = Renaming({kind: {old: stored, stored: old}}, LEAVES)
    assert swapped.keys(kind, {old: 1, stored: 2}) == {stored: 1, old: 2}


def system(judge: str) -> pj.System:
    def loss_fn(params: Any, batch: Any, rng_key: jax.Array) -> Any:
        return jnp.sum((params["policy"] - params[judge] - 1) ** 2), {}

    inner = pj.gradient_trainer(loss_fn, optax.adam(0.1), trains=("policy", judge))
    trainer = pj.with_optimizers(inner, {judge: optax.adam(0.01)})
    schedule = pj.Schedule(trainer, data="seen", batch_size=1)
    models = {name: pj.Model(jnp.zeros(3)) for name in ("policy", judge)}
    return learning_system(models=models, trainers={"fit": schedule})


def test_a_model_with_its_own_optimizer_goes_on_under_a_new_name(tmp_path: Path) -> None:
    pj.run_lockstep(system("judge"), 3, directory=tmp_path)
    with pytest.raises(InvalidValueError, match="'judge' and 'policy' would both be 'policy'"):
        pj.run_lockstep(system("judge"), 0, resume=tmp_path, rename={"models": {"judge": "policy"}})
    kept = pj.run_lockstep(system("judge"), 3, resume=tmp_path).snapshot.params
    renamed = pj.run_lockstep(system("critic"), 3, resume=tmp_path, rename={"models": {"judge": "critic"}})
    params = renamed.snapshot.params
    assert_equal_trees((params["policy"], params["critic"]), (kept["policy"], kept["judge"]))
