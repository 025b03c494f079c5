"""Augmentation of training images as re-identification and geo-localisation do it.

From PIL images to float32 tensors (3, H, W), normalised. Draws come from the global random state of
`random` and torch, which `datamodules.sampling` seeds for every sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from datamodules.vision.transforms import Interpolation, Triple

HALF: Triple = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class RetrievalAugment:
    """Augmentation of one training image; the defaults are TransReID's.

    FSRA's recipe is `pad: 0, erasing: 0`; that of the suite's Mamba baselines is
    `crop: random_resized, erasing: 0, color_jitter: 0.1`.

    Args:
        crop: `pad` resizes to the whole size, adds a border and crops the size again;
            `random_resized` crops a part of `scale` and `ratio`.
        pad: Border in pixels; 0 for none.
        pad_mode: Black border, or the edge repeated.
        scale: Part of the image's area that `random_resized` keeps: smallest, largest.
        ratio: Width by height of that part, relative to those of the output: smallest, largest.
        hflip: Probability of a horizontal flip.
        color_jitter: Strength of random brightness, contrast, saturation and hue, each; hue at most
            0.5.
        satellite_degrees: Largest random rotation, to either side, of satellite images (FSRA); no
            other view is turned.
        interpolation: Resampling filter.
        erasing: Probability of random erasing, after normalisation.
        erasing_mode: Erase with noise per pixel, one noise colour per rectangle, or 0.
    """

    crop: Literal["pad", "random_resized"] = "pad"
    pad: int = 10
    pad_mode: Literal["constant", "edge"] = "constant"
    scale: tuple[float, float] = (0.8, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    color_jitter: float = 0.0
    satellite_degrees: float = 90.0
    interpolation: Interpolation = "bicubic"
    erasing: float = 0.5
    erasing_mode: Literal["pixel", "rand", "const"] = "pixel"


Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class OnView:
    """Applies the transform of its view to a sample's image.

    Args:
        transforms: Transform of view 0, 1, ...
    """

    transforms: tuple[Transform, ...]

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample with its image transformed."""
        return sample | {"image": self.transforms[sample["view"]](sample["image"])}


def retrieval_train_transform(
    augment: RetrievalAugment,
    img_size: tuple[int, int],
    mean: Triple = HALF,
    std: Triple = HALF,
    view: str = "",
) -> Transform:
    """Random transform of a training image.

    Args:
        augment: What to do with it.
        img_size: (height, width) in pixels.
        mean: Mean of each channel, in units of [0, 1].
        std: Standard deviation of each channel, same units.
        view: Name of the image's view; `satellite` may be turned.
    """
    from timm.data.random_erasing import RandomErasing
    from torchvision import transforms

    filtering = transforms.InterpolationMode(augment.interpolation)
    turn = []
    if view == "satellite" and augment.satellite_degrees:
        turn = [transforms.RandomAffine(augment.satellite_degrees)]
    if augment.crop == "random_resized":
        own = img_size[1] / img_size[0]
        ratio = (augment.ratio[0] * own, augment.ratio[1] * own)
        crop = [
            *turn,
            transforms.RandomResizedCrop(img_size, augment.scale, ratio, interpolation=filtering),
        ]
    else:
        # The border comes before the turn, as in FSRA, so that corners may come from it.
        border = transforms.Pad(augment.pad, padding_mode=augment.pad_mode)
        crop = [
            transforms.Resize(img_size, filtering),
            *([border] if augment.pad else []),
            *turn,
            *([transforms.RandomCrop(img_size)] if augment.pad else []),
        ]
    steps = [*crop, transforms.RandomHorizontalFlip(augment.hflip)]
    if augment.color_jitter:
        steps.append(transforms.ColorJitter(*[augment.color_jitter] * 4))
    steps += [transforms.ToTensor(), transforms.Normalize(mean, std)]
    if augment.erasing:
        # On the CPU, for the draws of workers are seeded there.
        mode = augment.erasing_mode
        steps.append(RandomErasing(augment.erasing, mode=mode, max_count=1, device="cpu"))
    return transforms.Compose(steps)  # type: ignore[no-any-return]


def retrieval_eval_transform(
    img_size: tuple[int, int],
    mean: Triple = HALF,
    std: Triple = HALF,
    interpolation: Interpolation = "bicubic",
) -> Transform:
    """Resizes the whole image to the size; nothing is cropped.

    Args:
        img_size: (height, width) in pixels.
        mean: Mean of each channel, in units of [0, 1].
        std: Standard deviation of each channel, same units.
        interpolation: Resampling filter, antialiased.
    """
    from torchvision import transforms

    return transforms.Compose(  # type: ignore[no-any-return]
        [
            transforms.Resize(img_size, transforms.InterpolationMode(interpolation)),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
