"""Places of class tokens: in, out, and through another grid."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from blocks.errors import SuiteError
from lightning_modules.vision.networks.class_tokens import ClassTokens

KINDS = ("middle", "first", "double", "none")


@pytest.mark.parametrize("patches", [1, 4, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_in_comes_out_at_its_rows(kind: str, patches: int) -> None:
    places = ClassTokens(kind)  # type: ignore[arg-type]
    given = torch.arange(patches).float().reshape(1, -1, 1).expand(2, -1, 3)
    own = -1 - torch.arange(places.count).float().reshape(1, -1, 1).expand(2, -1, 3)
    tokens = places.insert(given, own)
    assert tokens.shape == (2, patches + places.count, 3)
    rows = [int(value) for value in tokens[0, :, 0].lt(0).nonzero().flatten()]
    assert rows == places.rows(patches)
    found, found_own = places.split(tokens)
    assert torch.equal(found, given) and torch.equal(found_own, own)


def test_the_published_middle_is_row_98_of_196() -> None:
    assert ClassTokens("middle").rows(196) == [98]
    assert ClassTokens("middle").rows(729) == [364]
    assert ClassTokens("double").rows(196) == [0, 197]


@pytest.mark.parametrize("upstream", [False, True])
def test_resizing_equals_the_vectors(golden: Path, upstream: bool) -> None:
    with safe_open(golden / "vision" / "vim_pos_embed_interp.safetensors", "pt") as file:
        for index, case in enumerate(json.loads(file.metadata()["cases"])):
            old, new = ((case[key],) * 2 for key in ("old_grid", "new_grid"))
            expected = file.get_tensor(f"case{index}.{'upstream' if upstream else 'middle_aware'}")
            found = ClassTokens("middle").resize(
                file.get_tensor(f"case{index}.inp"), old, new, upstream
            )
            assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_class_rows_survive_another_grid(kind: str) -> None:
    places = ClassTokens(kind)  # type: ignore[arg-type]
    table = torch.randn(1, 12 + places.count, 5)
    resized = places.resize(table, (3, 4), (2, 7))
    assert resized.shape == (1, 14 + places.count, 5)
    assert torch.equal(places.split(resized)[1], places.split(table)[1])
    assert places.resize(table, (3, 4), (3, 4)) is table


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(SuiteError, match="middle, first, double, none"):
        ClassTokens("last")  # type: ignore[arg-type]
