from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from pamiq_jax.trainer import buffer_pointers
from pamiq_jax.trainer.forward import forwarded_leaves, jit_forwarding


def tree() -> dict[str, jax.Array]:
    return {"a": jnp.arange(3.0), "b": jnp.ones(2)}


def test_only_what_is_handed_through_unchanged_is_forwarded() -> None:
    argument = tree()

    def function(x: Any) -> Any:
        return x["b"], x["a"] + 0, x["a"], x["a"], 3.0, jnp.zeros(2)

    assert forwarded_leaves(function, argument) == {0: 1, 2: 0, 3: 0}
    specs = jax.eval_shape(lambda: argument)
    assert forwarded_leaves(function, specs) == {0: 1, 2: 0, 3: 0}


def test_forwarded_leaves_are_the_very_arrays_and_the_rest_is_computed() -> None:
    argument = tree()
    publish = jit_forwarding(lambda x: {"same": x["a"], "half": x["a"].astype(jnp.float16)}, argument)
    published = publish(argument)
    assert published["same"] is argument["a"]
    assert published["half"].tolist() == [0, 1, 2]
    assert not buffer_pointers(published["half"]) & buffer_pointers(argument)


def test_it_computes_from_its_argument_each_time() -> None:
    publish = jit_forwarding(lambda x: (x["b"] * 2, x["b"]), tree())
    other = {"a": jnp.zeros(3), "b": jnp.full((2,), 5.0)}
    doubled, same = publish(other)
    assert doubled.tolist() == [10, 10]
    assert same is other["b"]


def test_jit_itself_would_copy() -> None:
    argument = tree()
    assert not buffer_pointers(jax.jit(lambda x: x["a"])(argument)) & buffer_pointers(argument)


def test_a_function_of_constants_only() -> None:
    assert jit_forwarding(lambda x: {"one": jnp.ones(2)}, tree())(tree())["one"].tolist() == [1, 1]
