"""`pamiq-jax doctor`: what it sees, and what it makes of it."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

from pamiq_jax import cli
from pamiq_jax.doctor import Seen, advice, describe, look, quota_cores
from pamiq_jax.runtime.program_cache import default_directory

FINE = Seen(
    versions={"Python": "3.12", "jax": "0.12"},
    platform="cpu",
    devices=("cpu",),
    cores=4,
    allowed_cores=4,
    quota_cores=None,
    load=0.5,
    has_nvidia=False,
    cache_directory="cache",
    cache_least_seconds=0.0,
    is_cache_enabled=True,
    environment={},
    slow_settings=(),
    has_gil=True,
)


def test_nothing_to_change() -> None:
    assert advice(FINE) == []
    assert describe(FINE).splitlines() == [
        "versions: Python 3.12, jax 0.12",
        "devices: 1 x cpu (cpu)",
        "cores: 4, of which this process may use 4",
        "load: 0.5",
        "threads: one at a time in Python (GIL)",
        "flags and limits: none set",
        "compilation cache: cache, from 0 s of compiling on",
        "",
        "nothing to change",
    ]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"allowed_cores": 1}, "There is 1 core for two threads"),
        ({"quota_cores": 0.5}, "taskset -c 0-0"),
        ({"quota_cores": 2.5}, "The control group allows the time of 2.5 cores, and XLA starts threads for 4"),
        ({"load": 9.0}, "9 programs want one of 4 cores"),
        ({"cache_least_seconds": 1.0}, "keeps nothing that compiles in less than 1 s"),
        ({"has_nvidia": True}, "JAX computes on the CPU"),
        ({"platform": "gpu", "devices": ("a GPU",)}, "Acting waits for the training program"),
        ({"slow_settings": ("jax_debug_nans",)}, "jax_debug_nans is on, and each program is waited for"),
        (
            {"environment": {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, "devices": ("cpu",) * 8},
            "XLA_FLAGS makes 8 devices of one CPU",
        ),
    ],
)
def test_what_could_be_better_is_said_with_its_remedy(changed: dict[str, object], expected: str) -> None:
    seen = FINE._replace(**changed)
    assert any(expected in line for line in advice(seen)), advice(seen)
    assert expected in describe(seen)


def test_unlimited_and_wide_quotas_are_no_reason_to_change() -> None:
    assert advice(FINE._replace(quota_cores=4.0)) == []
    assert advice(FINE._replace(load=None)) == []


def group(root: Path, name: str, files: dict[str, str]) -> None:
    (root / name).mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (root / name / file).write_text(text)


def test_the_narrowest_control_group_counts(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("0::/service/task\n")
    root = tmp_path / "groups"
    group(root, "", {"cpu.max": "400000 100000\n"})
    group(root, "service/task", {"cpu.max": "150000 100000\n"})
    assert quota_cores(root, own) == 1.5


def test_a_group_without_limit_or_of_version_1(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("4:cpu,cpuacct:/task\n")
    root = tmp_path / "groups"
    group(root, "", {"cpu.max": "max 100000\n"})
    assert quota_cores(root, own) is None
    group(root, "cpu/task", {"cpu.cfs_quota_us": "200000\n", "cpu.cfs_period_us": "100000\n"})
    assert quota_cores(root, own) == 2.0
    group(root, "cpu/task", {"cpu.cfs_quota_us": "-1\n"})
    assert quota_cores(root, own) is None
    group(root, "cpu/task", {"cpu.cfs_quota_us": "not a number\n"})
    assert quota_cores(root, own) is None


def test_the_command_prints_what_it_sees_and_sets_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    before = (dict(os.environ), set(jax.config.values.items()))
    assert cli.main(["doctor"]) == 0
    assert (dict(os.environ), set(jax.config.values.items())) == before
    printed = capsys.readouterr().out
    assert "OMP_NUM_THREADS=3" in printed
    assert f"devices: {len(jax.devices())} x cpu (cpu)" in printed


def test_settings_of_jax_are_seen() -> None:
    with jax.debug_nans(True):
        assert look().slow_settings == ("jax_debug_nans",)
    assert look().slow_settings == ()


def test_without_a_place_for_programs_it_says_where_launch_keeps_them() -> None:
    seen = FINE._replace(cache_directory=None)
    assert advice(seen) == []
    assert f"compilation cache: none is set, so `launch` keeps programs in {default_directory()}" in describe(seen)
    off = describe(seen._replace(is_cache_enabled=False))
    assert "compilation cache: off, by jax_enable_compilation_cache; nothing is kept" in off
