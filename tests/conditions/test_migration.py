"""The arguments that trainers of pamiq-core take."""

from __future__ import annotations

from typing import Any

import pytest

from pamiq_jax.conditions import Condition, always, migrated, min_new, min_size
from pamiq_jax.errors import InvalidValueError


@pytest.mark.parametrize(
    ("limits", "condition"),
    [
        ({"min_buffer_size": 1000, "min_new_data_count": 100}, min_size(1000) & min_new(100)),
        ({"min_buffer_size": 1000}, min_size(1000)),
        ({"min_new_data_count": 100}, min_new(100)),
        ({"min_buffer_size": 0, "min_new_data_count": 0}, always()),
        ({}, always()),
    ],
)
def test_the_old_names_make_the_new_condition(limits: dict[str, int], condition: Condition) -> None:
    assert migrated(training_condition_data_user="experience", **limits) == {"data": "experience", "when": condition}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"training_condition_data_user": None}, r"is None, expected the name of a buffer; .* leave `when` out"),
        (
            {"training_condition_data_user": ""},
            r"\(training_condition_data_user\) is '', expected the name of a buffer",
        ),
        (
            {"training_condition_data_user": "a", "min_buffer_size": -1},
            r"migrated\(min_buffer_size\) is -1, expected an integer from 0",
        ),
        (
            {"training_condition_data_user": "a", "min_new_data_count": 2.5},
            r"migrated\(min_new_data_count\) is 2.5, expected an integer from 0",
        ),
    ],
)
def test_a_bad_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        migrated(**arguments)
