"""The one error: four parts, and what a DataLoader worker leaves of it."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from blocks.errors import SuiteError

PARTS = {"expected": "a cat", "found": "a dog", "where": "the basket", "cure": "call the dog away"}
TEXT = "expected: a cat\nfound: a dog\nwhere: the basket\ncure: call the dog away"


class Broken(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> torch.Tensor:
        raise SuiteError(**PARTS)


def test_tells_four_parts_in_order() -> None:
    shuffled = dict(reversed(PARTS.items()))
    assert str(SuiteError(**shuffled)) == TEXT


def test_leaves_out_what_is_empty() -> None:
    assert str(SuiteError(found="a dog", cure="bark")) == "found: a dog\ncure: bark"


def test_is_a_value_error_so_that_plain_python_can_catch_it() -> None:
    with pytest.raises(ValueError, match="a dog"):
        raise SuiteError(**PARTS)


def test_a_rebuilt_error_loses_the_traceback_before_its_parts() -> None:
    trace = f"Caught SuiteError in worker 0.\nTraceback:\n  raise ...\nblocks.SuiteError: {TEXT}\n"
    assert str(SuiteError(trace)) == TEXT


def test_a_plain_message_stays_as_it_is() -> None:
    assert str(SuiteError("no parts here")) == "no parts here"


def test_survives_a_loader_worker_with_its_four_lines() -> None:
    with pytest.raises(SuiteError) as caught:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert str(caught.value) == TEXT
