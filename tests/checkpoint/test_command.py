"""`pamiq-jax inspect` and `pamiq-jax verify`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pamiq_jax import cli
from pamiq_jax.checkpoint import StateStore, named_leaves

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> StateStore:
    store = StateStore(tmp_path)
    for number in range(2):
        value = {
            "trainers": {"vae": named_leaves({"w": jnp.zeros((300, 300)) + number, "key": jax.random.key(0)})},
            "buffer": np.zeros((300, 400), np.uint8),
            "steps": 100 * number,
        }
        facts = {"version": number, "metrics": {"loss": 0.5}, "tags": ["a"]}
        store.write(value, facts=facts, created_at=1_700_000_000 + 60 * number)
    return store


def damage(store: StateStore) -> str:
    """Damage the largest block of the newest state and return its name."""
    paths = [path for path in (store.directory / "blocks").rglob("*") if path.is_file()]
    newest = max((path for path in paths if path.stat().st_size == 360_000), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(b"\1" * 360_000)
    return newest.name


def test_inspect_shows_states_facts_and_leaves(store: StateStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(store.directory)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2 states, 840.0 kB in blocks",
        "state  created (UTC)           total  only there",
        "    1  2023-11-14 22:13:20  480.0 kB    360.0 kB",
        "    2  2023-11-14 22:14:20  480.0 kB    360.0 kB",
        "",
        "state 2",
        "  version: 1",
        "  metrics.loss: 0.5",
        "  tags: ['a']",
        "4 leaves, 480.0 kB",
        "  ['trainers']['vae']['key']  key<threefry2x32>[]       8 B",
        "  ['trainers']['vae']['w']    float32[300,300]     360.0 kB",
        "  ['buffer']                  uint8[300,400]       120.0 kB",
        "  ['steps']                   int                       100",
    ]
    assert cli.main(["inspect", str(store.directory), "--state", "1"]) == 0
    assert "state 1\n  version: 0" in capsys.readouterr().out


def test_a_large_state_is_shown_by_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = {f"layer{index}": {"w": jnp.ones((4, 4)), "b": jnp.ones(4)} for index in range(20)}
    state = {"params": params, "opt_state": optax.adam(1e-3).init(params), "step": 3}
    StateStore(tmp_path).write({"trainer": named_leaves(state)}, facts={}, created_at=0)
    assert cli.main(["inspect", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-4:] == [
        "122 leaves, 4.8 kB, in groups; --all shows each",
        "  ['trainer']['opt_state']  81 leaves  3.2 kB",
        "  ['trainer']['params']     40 leaves  1.6 kB",
        "  ['trainer']['step']        1 leaves     0 B",
    ]
    assert cli.main(["inspect", str(tmp_path), "--all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 + 122
    assert "  ['trainer']['opt_state'][0].mu['layer0']['b']   float32[4]    16 B" in lines


def test_verify_says_which_state_is_damaged_and_where(store: StateStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(store.directory)]) == 0
    assert capsys.readouterr().out == "state 1: sound, 480.0 kB\nstate 2: sound, 480.0 kB\n"
    block = damage(store)
    assert cli.main(["verify", str(store.directory)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "state 1: sound, 480.0 kB",
        f"state 2: damaged: value['trainers']['vae']['w']: block {block} has another checksum than its name",
    ]
    (store.directory / "states" / "00000001" / "manifest.json").unlink()
    assert cli.main(["verify", str(store.directory)]) == 1
    assert capsys.readouterr().out.startswith("state 1: damaged: manifest.json is missing\n")


@pytest.mark.parametrize("command", ["inspect", "verify"])
@pytest.mark.parametrize("name", [".", "no such directory"])
def test_a_directory_without_states_is_one_line(
    command: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([command, str(tmp_path / name)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    what = "holds no saved state" if name == "." else "does not exist"
    assert captured.err.startswith(f"{tmp_path / name} {what}, expected `states/<number>` in it; name")
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", ["0", "7"])
def test_inspect_refuses_an_unknown_state(number: str, store: StateStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(store.directory), "--state", number]) == 1
    assert capsys.readouterr().err == f"{store.directory}: no state is named {number}; known: 1, 2\n"


def test_inspect_passes_over_damaged_manifests(store: StateStore, capsys: pytest.CaptureFixture[str]) -> None:
    (store.directory / "states" / "00000002" / "manifest.json").write_text("{")
    assert cli.main(["inspect", str(store.directory)]) == 0
    assert "state 1\n" in capsys.readouterr().out
    assert cli.main(["inspect", str(store.directory), "--state", "2"]) == 1
    assert capsys.readouterr().err.startswith("state 2 is damaged: manifest.json has another checksum")
    (store.directory / "states" / "00000001" / "manifest.json").write_text("{")
    assert cli.main(["inspect", str(store.directory)]) == 1
    assert "state 2 is damaged" in capsys.readouterr().err


def test_verify_is_a_command_of_its_own_process(store: StateStore) -> None:
    command = [sys.executable, "-W", "error", "-m", "pamiq_jax", "verify", str(store.directory)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("state 2: sound, 480.0 kB\n")


def test_inspect_mentions_a_state_whose_manifest_is_damaged(
    store: StateStore, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = next((store.directory / "states").glob("*1/manifest.json"))
    manifest.write_bytes(manifest.read_bytes()[:-9])
    assert cli.main(["inspect", str(store.directory)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("1 state, ")
    assert lines[3].startswith("state 1 is damaged: manifest.json has another checksum")
    assert lines[5] == "state 2"
