"""Numbers of blocks, as timm gives them."""

import pytest

from blocks.errors import SuiteError
from lightning_modules.vision.networks.intermediates import chosen_indices


@pytest.mark.parametrize("indices", [None, 1, 2, 4, [0], [3, 1], [-1], [-4, 2]])
def test_equals_timm(indices: int | list[int] | None) -> None:
    from timm.models._features import feature_take_indices

    assert chosen_indices(indices, 4) == feature_take_indices(4, indices)[0]


@pytest.mark.parametrize("indices", [0, 5, [4], [-5], []])
def test_numbers_outside_are_refused(indices: int | list[int]) -> None:
    with pytest.raises(SuiteError, match="0 .. 3"):
        chosen_indices(indices, 4)
