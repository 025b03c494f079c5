"""What the number of positions tells of the grid and the stride they were learned with."""

import pytest
import torch

from blocks.errors import SuiteError
from lightning_modules.vision import VisionMamba
from lightning_modules.vision.networks.patch_embed import PatchEmbed
from lightning_modules.vision.networks.trained_grid import check_stride, likely_grid


def patches(stride: int, img_size: int = 224, patch_size: int = 16) -> PatchEmbed:
    with torch.device("meta"):
        return PatchEmbed(img_size, patch_size, stride, 3, 8)


@pytest.mark.parametrize(
    ("own", "count", "grid"),
    [
        ((224, 224), 196, (14, 14)),
        ((224, 224), 729, (27, 27)),
        ((224, 224), 195, None),
        ((224, 224), 0, None),
        ((256, 128), 196, (14, 14)),
        ((256, 128), 288, (24, 12)),
        ((256, 128), 128, (16, 8)),
        ((96, 64), 54, (9, 6)),
        ((96, 64), 55, None),
        ((128, 256), 288, (12, 24)),
    ],
)
def test_a_grid_is_square_or_of_the_models_proportions(
    own: tuple[int, int], count: int, grid: tuple[int, int] | None
) -> None:
    with torch.device("meta"):
        assert likely_grid(PatchEmbed(own, 16, 16, 3, 8), count) == grid


def test_weights_of_tall_images_serve_taller_ones() -> None:
    small = {"dim": 16, "depth": 1, "num_classes": 2, "patch_size": 16}
    old = VisionMamba(img_size=(128, 64), **small)  # type: ignore[arg-type]
    new = VisionMamba(img_size=(192, 96), **small)  # type: ignore[arg-type]
    new.load_state_dict(new.adapt_state_dict(old.state_dict()))
    assert torch.equal(new.pos_embed[0, 36], old.pos_embed[0, 16])


@pytest.mark.parametrize(
    ("stride", "side", "guess"),
    [
        (16, 27, "224 x 224 pixels at stride 8"),
        (16, 47, "384 x 384 pixels at stride 8"),
        (16, 55, "448 x 448 pixels at stride 8"),
        (8, 14, "224 x 224 pixels at stride 16"),
        (8, 24, "384 x 384 pixels at stride 16"),
    ],
)
def test_another_stride_is_recognised_and_named(stride: int, side: int, guess: str) -> None:
    with pytest.raises(SuiteError) as caught:
        check_stride(patches(stride), (side, side))
    text = str(caught.value)
    assert guess in text
    other = 24 - stride
    assert f"stride to {other}" in text and f"pretrained_stride to {other}" in text


@pytest.mark.parametrize(
    ("stride", "img_size", "side"),
    [
        (16, 224, 24),  # 384
        (16, 384, 14),  # 224
        (16, 224, 16),  # 256
        (16, 224, 32),  # 512
        (8, 224, 47),  # 384
        (8, 384, 27),  # 224
        (16, 432, 27),  # The model's own size, odd as it is, is believed.
        (16, 224, 13),  # 208 at 16, 112 at 8: no size that anybody trains on.
    ],
)
def test_weights_of_the_same_stride_and_another_size_pass(
    stride: int, img_size: int, side: int
) -> None:
    check_stride(patches(stride, img_size), (side, side))


def test_small_images_are_judged_by_their_own_size() -> None:
    check_stride(patches(8, 64, patch_size=8), (4, 4))
    with pytest.raises(SuiteError, match="32 x 32 pixels at stride 8"):
        check_stride(patches(4, 32, patch_size=8), (4, 4))


def test_a_model_that_says_where_its_weights_come_from_takes_them() -> None:
    small = {"dim": 16, "depth": 1, "num_classes": 2, "img_size": 64}
    old = VisionMamba(stride=16, **small)  # type: ignore[arg-type]
    with pytest.raises(SuiteError, match="pretrained_stride"):
        VisionMamba(stride=8, **small).adapt_state_dict(old.state_dict())  # type: ignore[arg-type]
    new = VisionMamba(stride=8, pretrained_stride=16, **small)  # type: ignore[arg-type]
    new.load_state_dict(new.adapt_state_dict(old.state_dict()))
    assert torch.equal(new.pos_embed[0, 24], old.pos_embed[0, 8])
