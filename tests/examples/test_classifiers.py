from __future__ import annotations

import numpy as np
import pytest

from examples.classifiers import VARIANTS, accuracy, learn_live
from examples.digits import load_digits


@pytest.mark.parametrize("name", VARIANTS)
def test_it_tells_97_percent_of_digits_never_seen_with_what_an_agent_acted_with_live(name: str) -> None:
    variant, (_, test) = VARIANTS[name](), load_digits()
    snapshot, ticks = learn_live(variant)
    params = snapshot.params["classifier"]
    assert ticks >= 1_000
    assert accuracy(variant, params, test) >= 0.97
    # In evaluation mode a digit's logits depend on nothing but the digit.
    apply = variant.model.apply
    assert apply is not None
    np.testing.assert_allclose(apply(params, test.images[:1])[0], apply(params, test.images)[0], rtol=1e-3, atol=1e-3)
