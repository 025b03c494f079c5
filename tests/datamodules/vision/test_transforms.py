"""Evaluation preprocessing equals upstream's; augmentation does what its fields say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torchvision import transforms

from blocks.errors import SuiteError
from datamodules.sampling import seeded
from datamodules.vision.transforms import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augment,
    Normalise,
    OnImage,
    eval_transform,
    train_transform,
)

PHOTO = Image.fromarray(
    np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
).resize((80, 60), Image.Resampling.BICUBIC)
GENTLE: dict[str, Any] = {"auto_augment": None, "color_jitter": 0.0, "reprob": 0.0, "hflip": 0.0}


def augmented(
    augment: Augment, img_size: int | tuple[int, int] = 32, seed: int = 0
) -> torch.Tensor:
    transform = train_transform(augment, img_size)
    with seeded(seed, 0, 0):
        return transform(PHOTO)


def pixels(image: torch.Tensor) -> torch.Tensor:
    """Undoes the normalisation."""
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return image * std[:, None, None] + mean[:, None, None]


def test_evaluation_equals_upstreams_pixels(golden: Path) -> None:
    with safe_open(golden / "vision" / "eval_transform.safetensors", "pt") as file:
        cases = json.loads(file.metadata()["cases"])
        assert len(cases) == 3
        for number, case in enumerate(cases):
            image = Image.fromarray(file.get_tensor(f"case{number}.image_u8").numpy())
            expected = file.get_tensor(f"case{number}.out")
            actual = eval_transform(case["input_size"], crop_pct=0.875)(image)
            torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("img_size", [(32, 48), (48, 32), (7, 5)])
def test_a_height_and_width_come_out_as_asked(img_size: tuple[int, int]) -> None:
    assert eval_transform(img_size)(PHOTO).shape == (3, *img_size)
    for crop in ("random_resized", "simple"):
        assert augmented(Augment(crop=crop), img_size).shape == (3, *img_size)


def test_a_transform_of_samples_keeps_the_other_entries() -> None:
    sample = OnImage(eval_transform(16))({"image": PHOTO, "label": 3})
    assert sample["image"].shape == (3, 16, 16)
    assert sample["image"].dtype == torch.float32
    assert sample["label"] == 3


def test_the_whole_recipe_is_a_function_of_the_seed() -> None:
    assert torch.equal(augmented(Augment()), augmented(Augment()))
    assert not torch.equal(augmented(Augment()), augmented(Augment(), seed=1))


def test_a_full_scale_square_crop_of_a_square_image_is_the_image() -> None:
    square = PHOTO.resize((32, 32))
    transform = train_transform(Augment(scale=(1, 1), ratio=(1, 1), **GENTLE), 32)
    expected = torch.from_numpy(np.array(square)).permute(2, 0, 1) / 255
    torch.testing.assert_close(pixels(transform(square)), expected)


def test_a_certain_flip_mirrors_the_image() -> None:
    plain = Augment(scale=(1, 1), ratio=(1, 1), **GENTLE)
    flipped = Augment(scale=(1, 1), ratio=(1, 1), **(GENTLE | {"hflip": 1.0}))
    square = PHOTO.resize((32, 32))
    mirrored = train_transform(flipped, 32)(square)
    assert torch.equal(mirrored, train_transform(plain, 32)(square).flip(2))


def test_the_smallest_scale_shows_a_single_pixel_of_the_image() -> None:
    part = augmented(Augment(scale=(1 / 4800, 1 / 4800), ratio=(1, 1), **GENTLE))
    assert part.std(dim=(1, 2)).max() < 1e-5
    assert augmented(Augment(ratio=(1, 1), **GENTLE)).std(dim=(1, 2)).max() > 0.1


@pytest.mark.parametrize("remode, colours", [("const", 1), ("rand", 1), ("pixel", 50)])
def test_erasing_fills_a_rectangle_with_the_asked_noise(remode: str, colours: int) -> None:
    crop = {"scale": (1, 1), "ratio": (1, 1)}
    plain = augmented(Augment(**crop, **GENTLE))
    erased = augmented(Augment(**crop, **(GENTLE | {"reprob": 1.0}), remode=remode))
    hole = (plain != erased).any(dim=0)
    rows, columns = hole.any(dim=1).sum(), hole.any(dim=0).sum()
    assert hole.sum() > 0.9 * rows * columns > 0
    found = erased[:, hole].unique(dim=1).shape[1]
    assert found >= colours if remode == "pixel" else found == colours


def test_resplit_leaves_half_of_the_images_whole() -> None:
    crop = {"scale": (1, 1), "ratio": (1, 1), **(GENTLE | {"reprob": 1.0})}
    whole = augmented(Augment(**(crop | {"reprob": 0.0})))
    seen = [augmented(Augment(**crop, resplit=True), seed=seed) for seed in range(60)]
    assert 15 < sum(torch.equal(image, whole) for image in seen) < 45
    seen = [augmented(Augment(**crop), seed=seed) for seed in range(10)]
    assert not any(torch.equal(image, whole) for image in seen)


def test_more_rectangles_are_erased_as_asked() -> None:
    crop = {"scale": (1, 1), "ratio": (1, 1), **(GENTLE | {"reprob": 1.0}), "remode": "rand"}
    plain = augmented(Augment(**(crop | {"reprob": 0.0})), img_size=64)
    counts = set()
    for seed in range(20):
        image = augmented(Augment(**crop, recount=3), img_size=64, seed=seed)
        counts.add(image[:, (plain != image).any(dim=0)].unique(dim=1).shape[1])
    assert counts == {1, 2, 3}


@pytest.mark.parametrize("size", [(33, 40), (1, 1), (80, 60)])
def test_normalising_equals_torchvisions_two_steps_bit_for_bit(size: tuple[int, int]) -> None:
    image = PHOTO.resize(size)
    steps = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    ours = Normalise(IMAGENET_MEAN, IMAGENET_STD)(image)
    assert torch.equal(ours, transforms.Compose(steps)(image))
    assert ours.is_contiguous()


def test_the_training_transform_equals_timms_own() -> None:
    from timm.data.transforms_factory import create_transform

    policy = "rand-m3-mstd0.5-inc1"  # Of a magnitude that never posterizes to 0 bits.
    theirs = create_transform(
        48,
        is_training=True,
        auto_augment=policy,
        interpolation="bicubic",
        re_prob=0.5,
        re_mode="pixel",
    )
    gentle = Augment(auto_augment=policy, reprob=0.5)
    for seed in range(20):
        with seeded(seed, 0, 0):
            expected = theirs(PHOTO)
        assert torch.equal(augmented(gentle, img_size=48, seed=seed), expected)


def test_three_augment_blurs_greys_or_solarises_and_never_erases() -> None:
    crop = {"scale": (1, 1), "ratio": (1, 1), "hflip": 0.0, "color_jitter": 0.0}
    original = pixels(augmented(Augment(**crop, auto_augment=None, reprob=0.0)))
    kinds = set()
    for seed in range(12):
        augment = Augment(policy="three_augment", **crop, reprob=1.0)
        image = pixels(augmented(augment, seed=seed))
        if image.std(dim=0).max() < 1e-4:
            kinds.add("grey")
        elif torch.allclose(
            torch.minimum(original, 1 - original), torch.minimum(image, 1 - image), atol=1e-2
        ):
            kinds.add("solarised")
        else:
            assert (image - original).abs().max() < 0.5
            kinds.add("blurred")
    assert kinds == {"grey", "solarised", "blurred"}


def test_three_augment_keeps_the_colour_jitter() -> None:
    still = augmented(Augment(policy="three_augment", color_jitter=0.0))
    jittered = augmented(Augment(policy="three_augment", color_jitter=0.3))
    assert not torch.allclose(still, jittered)


@pytest.mark.parametrize("policy", ["rand-m10-n8-inc1", "v0"])
def test_posterizing_to_0_bits_paints_black_and_does_not_crash(policy: str) -> None:
    augment = Augment(auto_augment=policy, reprob=0.0)
    images = [pixels(augmented(augment, img_size=8, seed=seed)) for seed in range(150)]
    assert any(image.abs().max() < 1e-5 for image in images)


def test_an_unknown_policy_name_is_refused_with_its_cure() -> None:
    with pytest.raises(SuiteError, match="(?s)expected: a policy.*'random-magic'.*cure: correct"):
        train_transform(Augment(auto_augment="random-magic"), 32)
