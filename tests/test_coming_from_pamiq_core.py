"""The migration page has a counterpart for every name, and every counterpart exists."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import pamiq_jax as pj
from pamiq_jax.runtime.handle import TrainerHandle

TEXT = (Path(__file__).parents[1] / "docs" / "coming_from_pamiq_core.md").read_text()
ROW = re.compile(r"^\| (?P<left>.+?) \| (?P<right>.+?) \|$", re.MULTILINE)
CODE = re.compile(r"`([^`]+)`")
NAMES = re.findall(
    r"\w+",
    """
    is_trainable setup train sync_models teardown training_condition_data_user min_buffer_size min_new_data_count
    on_training_models_attached get_training_model on_data_users_attached get_data_user update get_data
    count_data_added_since on_paused on_resumed has_inference_model inference_thread_only SequentialBuffer
    RandomReplacementBuffer replace_probability expected_survival_length DictSequentialBuffer
    DictRandomReplacementBuffer TorchTrainer TorchTrainingModel device dtype compile unwrap Agent Environment
    Interaction FixedIntervalInteraction ModularEnvironment LaunchConfig launch max_uptime time_scale StateStore
    PeriodicSaveCondition LatestStatesKeeper saved_state_path connect_components forward infer inference_procedure
    create_optimizers default_device Sensor Actuator SensorWrapper ActuatorWrapper Wrapper LambdaWrapper
    EnvironmentWrapper GymEnvironment GymAgent save_state load_state
    """,
)
WORDS = [
    "overriding `is_trainable`",
    "inference copy, lazily created",
    "sync after training",
    "sync after load",
    "several trainers, round-robin",
    "custom buffers",
    "learning rate schedulers",
    "optimizer states kept between runs, and saved",
    "pretrained parameters",
    "typed getters",
    "child agents",
    "control thread",
    "pause, resume, shutdown",
    "statuses",
    "custom keepers",
    "web API",
    "console",
    "keyboard control",
    "mock models and buffers",
    "step time statistics in the log",
]


class Row(NamedTuple):
    left: str
    right: str


def rows(text: str) -> list[Row]:
    found = [Row(match["left"], match["right"]) for match in ROW.finditer(text)]
    return [row for row in found if row.left != "pamiq-core"]


def counterparts() -> list[str]:
    codes = [code for row in rows(TEXT) for code in CODE.findall(row.right)]
    return sorted({code for code in codes if re.match(r"(pj|pamiq_jax|run)\.", code)})


def look_up(path: ast.expr) -> Any:
    """Return what a dotted name means; `run` is a `pj.Run`, `run.trainers[...]` one of its handles."""
    if isinstance(path, ast.Subscript):
        return {"run.trainers": TrainerHandle}[ast.unparse(path.value)]
    if isinstance(path, ast.Name):
        return pj.Run if path.id == "run" else importlib.import_module(path.id.replace("pj", "pamiq_jax"))
    assert isinstance(path, ast.Attribute), ast.dump(path)
    owner = look_up(path.value)
    if inspect.ismodule(owner) and not hasattr(owner, path.attr):
        return importlib.import_module(f"{owner.__name__}.{path.attr}")
    return getattr(owner, path.attr)


@pytest.mark.parametrize("name", NAMES)
def test_the_old_name_is_in_the_left_column(name: str) -> None:
    assert any(name in CODE.findall(row.left) for row in rows(TEXT))


@pytest.mark.parametrize("words", WORDS)
def test_what_has_no_name_of_its_own_is_in_the_left_column(words: str) -> None:
    assert any(words in row.left for row in rows(TEXT))


@pytest.mark.parametrize("code", counterparts())
def test_the_counterpart_exists_and_takes_these_arguments(code: str) -> None:
    expression = ast.parse(code, mode="eval").body
    call = expression if isinstance(expression, ast.Call) else ast.Call(expression, [], [])
    found = look_up(call.func)
    missing = {keyword.arg for keyword in call.keywords} - set(
        inspect.signature(found).parameters if call.keywords else ()
    )
    assert (found is None, missing) == (False, set())


def test_every_row_says_what_to_use_or_that_there_is_nothing() -> None:
    here, _ = TEXT.split("## Not here yet")
    assert len(rows(here)) > 50
    needs_nothing = r"there is none|your own function|functions that the agent calls|optax schedules|any agent"
    untold = [row for row in rows(here) if not re.search(rf"`(pj|pamiq_jax|run)\.|^({needs_nothing})", row.right)]
    assert untold == []
