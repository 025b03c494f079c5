import pytest
import torch

from blocks import DropPath, drop_path_rates
from blocks.errors import SuiteError


def test_samples_are_dropped_whole_and_the_others_scaled() -> None:
    torch.manual_seed(0)
    y = DropPath(0.25)(torch.ones(4000, 2, 3))
    values = y.flatten(1)
    assert (values == values[:, :1]).all()
    assert set(values.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert abs(y.mean() - 1) < 0.03


def test_evaluation_and_zero_probability_do_nothing() -> None:
    x = torch.randn(8, 2)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0)(x) is x


def test_the_type_of_the_input_is_kept() -> None:
    assert DropPath(0.5)(torch.ones(4, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_impossible_probabilities_are_refused(p: float) -> None:
    with pytest.raises(SuiteError, match=r"\[0, 1\)"):
        DropPath(p)


@pytest.mark.parametrize("depth", [1, 2, 24])
def test_rates_are_a_linspace_from_zero(depth: int) -> None:
    expected = torch.linspace(0, 0.1, depth).tolist()
    assert drop_path_rates(depth, 0.1) == pytest.approx(expected)


def test_no_blocks_have_no_rates() -> None:
    assert drop_path_rates(0, 0.1) == []
