"""Each check of `check_buffer` catches a buffer that breaks just that promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pamiq_jax.data import Buffer, ring_buffer
from pamiq_jax.errors import ContractError
from pamiq_jax.testing import check_buffer

RING = ring_buffer(6)


def numpy_ring() -> Buffer[Any, Any, Any]:
    def add(state: Any, records: Any, count: Any) -> Any:
        for name, leaf in state["records"].items():
            leaf[: int(count)] = records[name][: int(count)]
        return state | {"size": np.int32(count)}

    def init(example: Any) -> Any:
        columns = {name: np.zeros((6, *np.shape(leaf)), np.float32) for name, leaf in example.items()}
        return {"records": columns, "size": np.int32(0)}

    return RING._replace(init=init, add=add, size=lambda state: state["size"])


def sample_cursor() -> Buffer[Any, Any, Any]:
    calls: list[int] = []

    def sample(state: Any, batch_size: int, position: Any, rng_key: Any) -> Any:
        calls.append(0)
        return RING.sample(state, batch_size, jnp.int32(len(calls)), rng_key)

    return RING._replace(sample=sample)


def with_sample(change: Callable[[Any], Any]) -> Buffer[Any, Any, Any]:
    def sample(state: Any, batch_size: int, position: Any, rng_key: Any) -> Any:
        return change(RING.sample(state, batch_size, position, rng_key))

    return RING._replace(sample=sample)


def with_size(change: Callable[[Any], Any]) -> Buffer[Any, Any, Any]:
    def add(state: Any, records: Any, count: Any) -> Any:
        after = RING.add(state, records, count)
        return after.replace(size=change(after.size))

    return RING._replace(add=add)


BROKEN_BUFFERS: dict[str, tuple[Callable[[], Buffer[Any, Any, Any]], str]] = {
    "numpy in place": (numpy_ring, r"add: .*its input is not changed: leaf \[0\]\['records'\]\['x'\] differs in"),
    "not empty": (
        lambda: RING._replace(init=lambda example: RING.init(example).replace(size=jnp.int32(2))),
        "init: .*it gives an empty buffer: it has 2 records",
    ),
    "dtype": (
        lambda: with_size(lambda size: size.astype(jnp.int16)),
        "add: .*dtypes.* kept: leaf .size: expected int32",
    ),
    "counts nothing": (lambda: with_size(lambda size: size + 1), "add: .*a count of 0 changes nothing: leaf .size"),
    "padding": (
        lambda: RING._replace(add=lambda state, records, count: RING.add(state, records, 4 * jnp.sign(count))),
        r"add: .*rows from `count` on are ignored: leaf .records\['x'\] differs in",
    ),
    "capacity": (
        lambda: RING._replace(capacity=5),
        "size: .*the capacity: after 8 records its size is 6, the capacity 5",
    ),
    "never fills": (
        lambda: RING._replace(size=lambda state: jnp.minimum(state.size, 1), required=lambda batch_size: 2),
        "add: .*the buffer fills up: 18 records in",
    ),
    "requires too much": (
        lambda: RING._replace(required=lambda batch_size: 9),
        r"required: .*can hold so many records: required\(2\) is 9, the capacity 6",
    ),
    "requires too little": (
        lambda: RING._replace(sample=lambda state, batch_size, position, rng_key: state_rows(state, batch_size)),
        "required: .*only records that were added: 1 of 2 rows",
    ),
    "cursor": (sample_cursor, r"sample: .*the same input gives the same output: leaf \['x'\] differs"),
    "invented": (lambda: with_sample(lambda batch: {"x": batch["x"] + 0.5}), "sample: .*that were added: 2 of 2 rows"),
    "short batch": (lambda: with_sample(lambda batch: {"x": batch["x"][:1]}), "sample: .*each leaf has 2 rows: got"),
}


def state_rows(state: Any, batch_size: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[:batch_size], state.records)


@pytest.mark.parametrize("name", BROKEN_BUFFERS)
def test_broken_buffer_is_caught(name: str) -> None:
    build, match = BROKEN_BUFFERS[name]
    with pytest.raises(ContractError, match=match):
        check_buffer(build(), {"x": 0.0})
