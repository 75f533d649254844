from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax import trees
from pamiq_jax.errors import PublishMismatchError, UnknownNameError
from pamiq_jax.publishing import Snapshot, SnapshotStore
from pamiq_jax.publishing.store import check_publishable

DEADLINE_SECONDS = 60


def store() -> SnapshotStore:
    return SnapshotStore({"policy": {"w": jnp.zeros(2)}, "value": jnp.zeros(3)}, published_at=1.5)


def test_the_first_parameters_are_version_0() -> None:
    snapshot = store().latest
    assert (snapshot.version, snapshot.step, snapshot.published_at) == (0, 0, 1.5)
    assert set(snapshot.params) == {"policy", "value"}


def test_the_mapping_of_parameters_is_read_only_and_its_own() -> None:
    params = {"policy": jnp.zeros(2)}
    snapshot = SnapshotStore(params).latest
    params["policy"] = jnp.ones(2)
    assert snapshot.params["policy"].tolist() == [0, 0]
    params_of: Any = snapshot.params
    with pytest.raises(TypeError, match="does not support item assignment"):
        params_of["policy"] = jnp.ones(2)
    with pytest.raises(AttributeError, match="can't set attribute"):
        snapshot.version = 7  # pyright: ignore[reportAttributeAccessIssue]  # that is the point


def test_versions_grow_by_one_and_old_snapshots_stay() -> None:
    cell = store()
    snapshots = [cell.latest]
    for step in (10, 20, 30):
        published = cell.publish({"value": jnp.full((3,), step, jnp.float32)}, step=step, published_at=step / 10)
        assert published is cell.latest
        snapshots.append(published)
    assert [snapshot.version for snapshot in snapshots] == [0, 1, 2, 3]
    assert [snapshot.step for snapshot in snapshots] == [0, 10, 20, 30]
    assert [float(snapshot.params["value"][0]) for snapshot in snapshots] == [0, 10, 20, 30]
    assert snapshots[-1].published_at == 3.0


def test_models_that_are_not_published_stay_the_same_arrays() -> None:
    cell = store()
    before = cell.latest
    new = jnp.ones(3)
    after = cell.publish({"value": new}, step=1)
    leaves = zip(jax.tree.leaves(after.params["policy"]), jax.tree.leaves(before.params["policy"]), strict=True)
    assert all(leaf is old for leaf, old in leaves)
    assert after.params["value"] is new


def test_succeeding_changes_nothing_in_the_one_before() -> None:
    first = Snapshot.of({"a": 1, "b": 2}, step=5)
    second = first.succeeded_by({"a": 3}, step=6, published_at=2.0)
    assert (dict(first.params), first.version) == ({"a": 1, "b": 2}, 0)
    assert (dict(second.params), second.version, second.step) == ({"a": 3, "b": 2}, 1, 6)


def weak() -> jax.Array:
    return jnp.asarray(1.0)


MISMATCHES: dict[str, tuple[Any, Any, str]] = {
    "structure": ({"w": jnp.zeros(2)}, {"w": jnp.zeros(2), "b": jnp.zeros(2)}, r"unexpected \['b'\]"),
    "shape": ({"w": jnp.zeros(2)}, {"w": jnp.zeros(3)}, r"leaf \['w'\]: expected float32\[2\], got float32\[3\]"),
    "dtype": (jnp.zeros(2), jnp.zeros(2, jnp.bfloat16), r"expected float32\[2\], got bfloat16\[2\]"),
    "weak type": (jnp.float32(1), weak(), "weak type False became True"),
    "numpy": (jnp.zeros(2), np.zeros(2, np.float32), r"expected a jax.Array, got ndarray"),
    "another device": (jnp.zeros(2), jax.device_put(jnp.zeros(2), jax.devices()[1]), "expected on .*got "),
}


@pytest.mark.parametrize("name", MISMATCHES)
def test_another_form_is_refused_and_the_last_version_stays(name: str) -> None:
    old, new, problem = MISMATCHES[name]
    cell = SnapshotStore({"policy": old})
    with pytest.raises(PublishMismatchError, match=f"model 'policy', .*{problem}.*publish the form that version 0 has"):
        cell.publish({"policy": new}, step=1)
    assert cell.latest.version == 0
    kept = jax.tree.leaves(cell.latest.params["policy"])
    assert all(leaf is before for leaf, before in zip(kept, jax.tree.leaves(old), strict=True))


def test_parameters_over_several_devices_keep_their_sharding() -> None:
    mesh = jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.device_put(jnp.zeros(8), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x")))
    check_publishable({"policy": spread}, {"policy": spread + 1})
    with pytest.raises(PublishMismatchError, match=r"expected on NamedSharding.*got SingleDeviceSharding"):
        check_publishable({"policy": spread}, {"policy": jnp.zeros(8)})


def test_keys_may_be_published() -> None:
    cell = SnapshotStore({"noise": jax.random.key(0)})
    assert cell.publish({"noise": jax.random.key(1)}, step=1).version == 1


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"no published model is named 'q'; .*: 'policy', 'value'"):
        store().publish({"q": jnp.zeros(2)}, step=1)


def test_waiting_for_a_version_that_is_there_returns_at_once() -> None:
    cell = store()
    cell.publish({"value": jnp.ones(3)}, step=1)
    assert cell.wait_for(0, timeout=0).version == 1
    assert cell.wait_for(1, timeout=0) is cell.latest


def test_waiting_ends_with_a_reason() -> None:
    with pytest.raises(TimeoutError, match="version 1 was not published within 0 seconds; the newest is 0"):
        store().wait_for(1, timeout=0)


def test_waiting_is_ended_by_a_publication_from_another_thread() -> None:
    cell, found = store(), []
    about_to_wait = threading.Barrier(2)

    def wait() -> None:
        about_to_wait.wait(DEADLINE_SECONDS)
        found.append(cell.wait_for(2, timeout=DEADLINE_SECONDS))

    waiter = threading.Thread(target=wait)
    waiter.start()
    about_to_wait.wait(DEADLINE_SECONDS)
    for step in (1, 2):
        cell.publish({"value": jnp.ones(3)}, step=step)
    waiter.join(DEADLINE_SECONDS)
    assert not waiter.is_alive()
    assert found[0].version == 2


def test_a_snapshots_params_go_into_a_jitted_function_as_a_dict() -> None:
    params = {"policy": {"w": jnp.ones(3)}, "body": jnp.full(2, 2.0)}
    published = Snapshot.of(params).params
    assert float(jax.jit(lambda given: given["policy"]["w"].sum() + given["body"].sum())(published)) == 7
    assert trees.leaf_names(published) == ["['body']", "['policy']['w']"]
    doubled = jax.tree.map(lambda leaf: 2 * leaf, published)
    assert type(doubled) is dict
    assert float(doubled["body"][0]) == 4
