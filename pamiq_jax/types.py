"""Names for the values that travel through every room of the house."""

from __future__ import annotations

from typing import Any

import jax

type PyTree = Any
"""Nested dicts, lists, tuples and dataclasses with arrays as leaves."""

type Params = PyTree
"""The trainable arrays of one or several models."""

type Metrics = dict[str, jax.Array]
"""Scalar arrays `[]` by name, returned beside the state they describe; only a step's "priorities" are `[B]`."""
