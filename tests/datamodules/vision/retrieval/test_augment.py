"""Augmentation of the recipes."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional

from datamodules.sampling import seeded
from datamodules.vision import RetrievalAugment
from datamodules.vision.retrieval.augment import (
    OnView,
    Transform,
    retrieval_eval_transform,
    retrieval_train_transform,
)

SIZE = (32, 16)
STILL = {"pad": 0, "hflip": 0.0, "erasing": 0.0}


def picture(size: tuple[int, int] = (20, 40)) -> Image.Image:
    width, height = size
    pixels = np.random.default_rng(0).integers(60, 255, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


def draws(transform: Transform, count: int = 12) -> list[torch.Tensor]:
    shown = []
    for position in range(count):
        with seeded(0, 0, position):
            shown.append(transform(picture()))
    return shown


def train(view: str = "", **fields: Any) -> Transform:
    return retrieval_train_transform(RetrievalAugment(**fields), SIZE, view=view)


def test_evaluation_resizes_the_whole_picture_and_normalises() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    shown = retrieval_eval_transform(SIZE, mean, std)(picture())
    resized = picture().resize(SIZE[::-1], Image.Resampling.BICUBIC)
    expected = functional.normalize(functional.to_tensor(resized), mean, std)
    assert shown.shape == (3, *SIZE)
    torch.testing.assert_close(shown, expected)


def test_nothing_asked_for_is_the_evaluation_transform() -> None:
    expected = retrieval_eval_transform(SIZE)(picture())
    assert all(torch.equal(shown, expected) for shown in draws(train(**STILL)))


def test_a_flip_is_a_mirror_half_of_the_time() -> None:
    still = retrieval_eval_transform(SIZE)(picture())
    shown = draws(train(**STILL | {"hflip": 0.5}), 60)
    mirrored = [torch.allclose(image, still.flip(2), atol=1e-6) for image in shown]
    assert all(m or torch.equal(image, still) for m, image in zip(mirrored, shown, strict=True))
    assert 15 < sum(mirrored) < 45


def test_pad_and_crop_moves_the_picture_by_at_most_the_border() -> None:
    still = retrieval_eval_transform(SIZE)(picture())
    bordered = torch.nn.functional.pad(still, (3, 3, 3, 3), value=-1.0)
    places = set()
    for image in draws(train(**STILL | {"pad": 3}), 40):
        found = [
            (y, x) for y in range(7) for x in range(7)
            if torch.equal(image, bordered[:, y : y + 32, x : x + 16])
        ]  # fmt: skip
        assert len(found) == 1
        places |= set(found)
    assert len(places) > 15


def test_an_edge_border_is_not_black() -> None:
    shown = draws(train(**STILL | {"pad": 8, "pad_mode": "edge"}))
    assert min(float(image.min()) for image in shown) > -0.9


@pytest.mark.parametrize("mode", ["pixel", "rand", "const"])
def test_erasing_comes_after_normalising(mode: str) -> None:
    still = retrieval_eval_transform(SIZE)(picture())
    for image in draws(train(**STILL | {"erasing": 1.0, "erasing_mode": mode})):
        changed = (image != still).any(dim=0)
        assert 0 < changed.sum() < changed.numel()
        inside = image[:, changed]
        if mode == "const":
            assert (inside == 0).all()
        elif mode == "rand":
            assert (inside == inside[:, :1]).all()
        else:
            assert len(inside.unique()) > 3


def test_only_satellite_views_are_turned() -> None:
    still = retrieval_eval_transform(SIZE)(picture())
    assert all(torch.equal(image, still) for image in draws(train("drone", **STILL)))
    turned = draws(train("satellite", **STILL))
    assert sum(torch.equal(image, still) for image in turned) < 3  # A small angle moves no pixel.
    assert all(
        torch.equal(image, still)
        for image in draws(train("satellite", **STILL | {"satellite_degrees": 0.0}))
    )


def test_random_resized_crops_keep_the_size_and_differ() -> None:
    shown = draws(train(crop="random_resized", hflip=0.0, erasing=0.0))
    assert {tuple(image.shape) for image in shown} == {(3, *SIZE)}
    assert len({float(image.sum()) for image in shown}) == len(shown)


def test_colour_jitter_changes_colours_alone() -> None:
    grey = Image.new("RGB", (16, 32), (90, 140, 200))
    transform = train(**STILL | {"color_jitter": 0.1})
    shown = []
    for position in range(5):
        with seeded(0, 0, position):
            shown.append(transform(grey))
    assert all((image == image[:, :1, :1]).all() for image in shown)
    assert len({float(image[0, 0, 0]) for image in shown}) > 1


def test_each_view_has_its_transform() -> None:
    sample = {"image": picture(), "view": 1, "path": "a"}
    steps = OnView((lambda _: torch.zeros(1), lambda _: torch.ones(1)))
    assert steps(sample) == {"image": torch.ones(1), "view": 1, "path": "a"}
