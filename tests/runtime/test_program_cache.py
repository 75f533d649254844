"""Compiled programs are kept for the next start, unless JAX's settings say otherwise; the settings are put back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

import pamiq_jax as pj
from pamiq_jax.runtime import program_cache
from pamiq_jax.runtime.program_cache import default_directory, forget_oldest, kept_programs
from tests.runtime.fakes import PATIENCE, fed_system

SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_enable_compilation_cache")


def settings() -> list[object]:
    return [getattr(jax.config, name) for name in SETTINGS]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a home of its own, in a process that has no cache set: the tests themselves have one."""
    before = settings()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update(SETTINGS[0], None)
    jax.config.update(SETTINGS[1], 1.0)
    compilation_cache.reset_cache()
    yield tmp_path
    for name, value in zip(SETTINGS, before, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compile_anew(number: int) -> None:
    jax.jit(lambda x: x * number).lower(jnp.ones(3)).compile()


def test_a_launched_system_keeps_its_programs(home: Path) -> None:
    before = settings()
    with pj.launch(fed_system()) as run:
        run.wait_until_ready(PATIENCE)
        assert settings() == before
    assert default_directory().is_relative_to(home)
    assert list(default_directory().iterdir())


def test_settings_are_put_back_after_the_last_of_several(home: Path) -> None:
    before = settings()
    with kept_programs() as outer:
        with kept_programs() as inner:
            assert inner == outer == default_directory()
        compile_anew(7)
        assert settings()[:2] == [str(outer), 0.0]
    assert settings() == before
    kept = set(default_directory().iterdir())
    assert kept
    compile_anew(8)
    assert set(default_directory().iterdir()) == kept


def test_a_place_that_the_user_has_set_is_kept(home: Path) -> None:
    jax.config.update(SETTINGS[0], str(home / "mine"))
    with kept_programs() as directory:
        assert directory is None
        assert settings()[:2] == [str(home / "mine"), 1.0]
    assert not default_directory().exists()


def test_a_cache_that_the_user_has_switched_off_stays_off(home: Path) -> None:
    jax.config.update(SETTINGS[2], False)
    with kept_programs() as directory:
        assert directory is None
    assert not default_directory().exists()


def test_nowhere_to_write_to_is_no_failure(home: Path) -> None:
    (home / "pamiq_jax").write_text("a file where the directory would be")
    before = settings()
    with kept_programs() as directory:
        assert directory is None
        compile_anew(9)
    assert settings() == before


def test_programs_that_were_used_longest_ago_go_first(tmp_path: Path) -> None:
    for age, name in enumerate("abcd"):
        (tmp_path / name).write_bytes(bytes(10))
        os.utime(tmp_path / name, (100.0 - age, 100.0 - age))
    forget_oldest(tmp_path, 40)
    assert len(list(tmp_path.iterdir())) == 4
    forget_oldest(tmp_path, 39)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_processors_do_not_share_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    here = default_directory()
    monkeypatch.setattr(program_cache.platform, "machine", lambda: "another")
    assert default_directory() != here
