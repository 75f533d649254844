"""Exact resume: N ticks in lockstep are k ticks, a save, a kill, and N - k ticks in a new process, bit for bit.

One row for every kind of buffer and for every example. In each, k is a tick at which a trainer is inside a run.
"""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.contracts.resume_table import BUFFERS, EXAMPLES, GROUPS
from tests.runtime.resuming import finish, start

type Ends = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def ends_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Ends, Ends]]:
    """Return how the systems of a group end: in a process that is killed then, and in one that goes on from within."""
    programs, states = tmp_path_factory.mktemp("programs"), tmp_path_factory.mktemp("states")

    def run(task: str, *arguments: object) -> tuple[int, Ends]:
        code, output = finish(start(programs, "tests.contracts.resume_table", task, states, *arguments))
        return code, {said.pop("name"): said for said in map(json.loads, output.splitlines())}

    @functools.cache
    def ends(group: str) -> tuple[Ends, Ends]:
        code, straight = run("straight", group)
        assert code == -signal.SIGKILL, f"ended with {code} after {list(straight)}"
        code, resumed = run("resumed", group, json.dumps({name: said["state"] for name, said in straight.items()}))
        assert code == 0, f"ended with {code} after {list(resumed)}"
        return straight, resumed

    return ends


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in GROUPS.items() for name in names])
def test_goes_on_as_if_nothing_had_been(group: str, name: str, ends_of: Callable[[str], tuple[Ends, Ends]]) -> None:
    straight, resumed = (of_process[name]["end"] for of_process in ends_of(group))
    for said in ("metrics", "ticks"):
        assert resumed[said], f"no {said} after the save"
        straight[said] = straight[said][-len(resumed[said]) :]
    assert resumed == straight


def test_every_example_has_a_row() -> None:
    from examples.__main__ import names

    assert {name.split(",")[0] for name in EXAMPLES} == set(names())
    assert sorted(name for names in GROUPS.values() for name in names) == sorted([*BUFFERS, *EXAMPLES])
