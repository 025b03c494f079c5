"""Training augmentation and evaluation preprocessing, built on timm's transforms.

All work on PIL images and give float32 tensors (3, H, W), normalised. They draw from the global
random state of `random`, numpy and torch, which `datamodules.sampling` seeds for every sample.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from PIL import Image, ImageOps
from torch import Tensor

from blocks.errors import SuiteError

Size = int | tuple[int, int]
Triple = tuple[float, float, float]
Interpolation = Literal["bicubic", "bilinear", "nearest"]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Augment:
    """Augmentation of one training image; the defaults are those of Vim and DeiT.

    Mixup and CutMix mix whole batches and belong to the module.

    Args:
        policy: `timm` applies the fields below; `three_augment` is DeiT-III's: one of grey,
            solarise or blur, then colour jitter, without erasing; `none` is the evaluation
            transform, for tests of whether a model can learn its training set by heart.
        crop: `random_resized` crops a part of `scale` and `ratio`; `simple` resizes the shorter
            side and crops after a reflected border of 4 pixels (DeiT-III's `--src`).
        scale: Part of the image's area that a random crop keeps: smallest, largest.
        ratio: Width by height of a random crop: smallest, largest.
        hflip: Probability of a horizontal flip.
        auto_augment: timm's name of an AutoAugment, RandAugment or AugMix policy; null for none.
        color_jitter: Strength of random brightness, contrast and saturation. Without effect beside
            `auto_augment`, as upstream.
        interpolation: Resampling filter of crops and of automatic augmentation.
        reprob: Probability of random erasing, after normalisation.
        remode: Erase with noise per pixel, one noise colour per rectangle, or 0.
        recount: Largest number of erased rectangles.
        resplit: Leaves half of the images without erasing. timm's loader leaves out the first half
            of each batch; an image knows nothing of its batch, so here a coin decides.
    """

    policy: Literal["timm", "three_augment", "none"] = "timm"
    crop: Literal["random_resized", "simple"] = "random_resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    color_jitter: float = 0.3
    interpolation: Interpolation = "bicubic"
    reprob: float = 0.25
    remode: Literal["pixel", "rand", "const"] = "pixel"
    recount: int = 1
    resplit: bool = False


@dataclass(frozen=True)
class OnImage:
    """Applies a transform to the entry `image` of a sample.

    Args:
        transform: From a PIL image to a tensor.
    """

    transform: Callable[[Image.Image], Tensor]

    def __call__(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample with its image transformed."""
        return sample | {"image": self.transform(sample["image"])}


def train_transform(
    augment: Augment, img_size: Size, mean: Triple = IMAGENET_MEAN, std: Triple = IMAGENET_STD
) -> Callable[[Image.Image], Tensor]:
    """Random transform of a training image.

    Args:
        augment: What to do with it. Not for policy `none`, which is `eval_transform`.
        img_size: Side, or (height, width), in pixels.
        mean: Mean of each channel, in units of [0, 1].
        std: Standard deviation of each channel, same units.
    """
    from timm.data.transforms_factory import create_transform
    from torchvision import transforms

    three = augment.policy == "three_augment"
    try:
        crop, change, finish = create_transform(
            img_size,
            is_training=True,
            separate=True,
            scale=augment.scale,
            ratio=augment.ratio,
            hflip=augment.hflip,
            # timm's "3a" keeps the colour jitter, which its other policies switch off.
            auto_augment="3a" if three else augment.auto_augment,
            color_jitter=augment.color_jitter,
            interpolation=augment.interpolation,
            mean=mean,
            std=std,
            # DeiT-III's generator knows no erasing, whatever --reprob says.
            re_prob=0.0 if three else augment.reprob / (2 if augment.resplit else 1),
            re_mode=augment.remode,
            re_count=augment.recount,
        )
    except (AssertionError, KeyError, ValueError) as error:
        raise SuiteError(
            expected="a policy that timm knows, such as rand-m9-mstd0.5-inc1, augmix-m3 or v0",
            found=f"{augment.auto_augment!r} ({error or type(error).__name__})",
            where="augment.auto_augment",
            cure="correct the policy's name, or set it to null for none",
        ) from error
    _mend_posterize(change)
    finish = _normalised(finish, mean, std)
    if augment.crop == "simple":
        crop = _simple_crop(img_size, augment)
    return transforms.Compose([crop, change, finish])  # type: ignore[no-any-return]


def eval_transform(
    img_size: Size,
    crop_pct: float = 0.875,
    mean: Triple = IMAGENET_MEAN,
    std: Triple = IMAGENET_STD,
    interpolation: Interpolation = "bicubic",
) -> Callable[[Image.Image], Tensor]:
    """Resizes the shorter side to `img_size / crop_pct` (rounded down) and crops the centre.

    Args:
        img_size: Side, or (height, width), in pixels. Of a height and a width, the image is
            resized to cover both.
        crop_pct: Part of the resized image that the crop keeps, per side: 224 at 0.875 comes from
            256.
        mean: Mean of each channel, in units of [0, 1].
        std: Standard deviation of each channel, same units.
        interpolation: Resampling filter, antialiased.
    """
    from timm.data.transforms_factory import create_transform

    whole = create_transform(
        img_size, crop_pct=crop_pct, mean=mean, std=std, interpolation=interpolation
    )
    return _normalised(whole, mean, std)  # type: ignore[no-any-return]


class Normalise:
    """From a PIL RGB image to a normalised float32 tensor (3, H, W).

    The same numbers as torchvision's `ToTensor` and `Normalize`, bit for bit, in two thirds of
    their time: nothing is copied after the conversion to float.

    Args:
        mean: Mean of each channel, in units of [0, 1].
        std: Standard deviation of each channel, same units.
    """

    def __init__(self, mean: Triple, std: Triple) -> None:
        self.mean = torch.tensor(mean).view(3, 1, 1)
        self.std = torch.tensor(std).view(3, 1, 1)

    def __call__(self, image: Image.Image) -> Tensor:
        """The image as a tensor."""
        width, height = image.size
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        planes = pixels.view(height, width, 3).permute(2, 0, 1)
        result = planes.to(torch.float32, memory_format=torch.contiguous_format)
        return result.div_(255).sub_(self.mean).div_(self.std)


def _normalised(transform: Any, mean: Triple, std: Triple) -> Any:
    """The same transform with one step in place of timm's two that make a normalised tensor."""
    from timm.data.transforms import MaybeToTensor
    from torchvision import transforms

    steps: list[Any] = []
    for step in transform.transforms:
        if isinstance(step, MaybeToTensor | transforms.ToTensor):
            step = Normalise(mean, std)
        if not isinstance(step, transforms.Normalize):
            steps.append(step)
    if not any(isinstance(step, Normalise) for step in steps):
        raise RuntimeError(f"timm's transform has no step that makes a tensor: {transform}")
    return transforms.Compose(steps)


def _simple_crop(img_size: Size, augment: Augment) -> Callable[[Image.Image], Image.Image]:
    from torchvision import transforms

    longer = img_size if isinstance(img_size, int) else max(img_size)
    return transforms.Compose(  # type: ignore[no-any-return]
        [
            transforms.Resize(longer, transforms.InterpolationMode(augment.interpolation)),
            transforms.RandomCrop(img_size, padding=4, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(augment.hflip),
        ]
    )


def _mend_posterize(change: Any) -> None:
    """Lets timm's posterize ask for 0 bits, as the default recipe does for one image in some 500.

    Older Pillow painted such an image black, and the published models were trained so; newer Pillow
    (13.0) raises.
    """
    from timm.data import auto_augment

    for policy in change.transforms:
        # RandAugment and AugMix keep a list of operations, AutoAugment a list of such lists.
        for operation in getattr(policy, "ops", ()) or sum(getattr(policy, "policy", ()), []):
            if operation.aug_fn is auto_augment.posterize:
                operation.aug_fn = _posterize


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    return ImageOps.posterize(image, bits) if bits else Image.new("RGB", image.size)
