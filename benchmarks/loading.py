"""Reading, decoding and augmenting images: our loader beside timm's, by one worker's time.

All read the same JPEG files, synthetic photos about as large as ImageNet's, and train with the same
recipe. `timm` makes the same normalised batches; `timm_uint8`, the part of timm's prefetching
loader that its workers do, leaves conversion, normalisation and erasing to the device.
"""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.settings import Settings, Tell, chosen
from benchmarks.timing import compare, interleave
from datamodules.sampling import EvalSampler, SeededDataset, TrainSampler
from datamodules.vision.image_conversion import convert_images
from datamodules.vision.image_reader import ImageReader
from datamodules.vision.imagenet_layouts import read_layout
from datamodules.vision.layouts.request import Request
from datamodules.vision.transforms import Augment, OnImage, eval_transform, train_transform

LOADING_PEERS = ("ours_shards", "timm", "timm_uint8")
IMAGES, BATCH, PIXELS = 128, 32, 224
# ImageNet's photos have 500 x 375 pixels in the median and 110 kB in the mean.
_WIDTH, _HEIGHT, _QUALITY = 500, 375, 90
# Vim's recipe is m9; at times it asks Pillow for 0 bits, which newer versions refuse timm.
_POLICY = "rand-m6-mstd0.5-inc1"
_CROP = 0.875


def measure_loading(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measures passes through a folder of images by one worker process, which lives on.

    Args:
        settings: How. The device plays no part.
        tell: Hears what is being done.

    Returns:
        `training` and `evaluation`, each with rows by name that have `images_per_second`; number
        and mean size of the `images`.
    """
    names = chosen(settings, LOADING_PEERS)
    count, batch = (8, 4) if settings.quick else (IMAGES, BATCH)
    with tempfile.TemporaryDirectory(prefix="bimamba-loading-") as folder:
        root = Path(folder) / "folder"
        tell(f"writing {count} images")
        size = write_photos(root, count)
        found: dict[str, Any] = {"images": count, "bytes": size, "batch": batch, "pixels": PIXELS}
        for mode in ("training", "evaluation"):
            loaders = {"ours": _ours(root, batch, mode)}
            for name in names:
                if name == "ours_shards":
                    loaders[name] = _ours(_shards(root), batch, mode)
                else:
                    loaders[name] = _timm(root, batch, mode, prefetcher=name == "timm_uint8")
            tell(f"{mode} from {count} images, batches of {batch}: {', '.join(loaders)}")
            rows = compare(
                interleave({name: _passage(each) for name, each in loaders.items()}, settings),
                "ours",
            )
            for row in rows.values():
                if "median_seconds" in row:
                    row["images_per_second"] = count / row["median_seconds"]
            found[mode] = rows
    return found


def write_photos(root: Path, count: int) -> float:
    """Writes `train/0/*.JPEG` and `val/0`, a link to it, of noise with a photo's spectrum.

    Args:
        root: Folder to write to.
        count: Number of images.

    Returns:
        Mean size of a file in bytes.
    """
    (root / "train" / "0").mkdir(parents=True)
    (root / "val").mkdir()
    rng = np.random.default_rng(0)
    rows, columns = np.fft.fftfreq(_HEIGHT)[:, None], np.fft.rfftfreq(_WIDTH)
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = frequency[0, 1]
    for number in range(count):
        noise = np.fft.rfft2(rng.normal(size=(3, _HEIGHT, _WIDTH)))
        # Amplitudes of natural images fall with the frequency.
        planes = np.fft.irfft2(noise / frequency, s=(_HEIGHT, _WIDTH))
        grey = planes.mean(axis=0) * 2
        pixels = np.stack([grey + plane / 2 for plane in planes], axis=-1)
        pixels = 120 + 60 * pixels / pixels.std() + rng.normal(0, 4, pixels.shape)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(root / "train" / "0" / f"{number:04d}.JPEG", quality=_QUALITY)
    (root / "val" / "0").symlink_to(root / "train" / "0", target_is_directory=True)
    sizes = [path.stat().st_size for path in (root / "train" / "0").iterdir()]
    return float(np.mean(sizes))


def _shards(root: Path) -> Path:
    to = root.parent / "shards"
    if not to.is_dir():
        for _ in convert_images(read_layout(Request(root)), to, "shards"):
            pass
    return to


def _ours(root: Path, batch: int, mode: str) -> Iterable[Any]:
    images = read_layout(Request(root))
    training = mode == "training"
    reader = ImageReader(images.train if training else images.val)
    sampler = TrainSampler(len(reader)) if training else EvalSampler(len(reader))
    if training:
        transform = train_transform(Augment(auto_augment=_POLICY), PIXELS)
    else:
        transform = eval_transform(PIXELS, _CROP)
    dataset = SeededDataset(reader, OnImage(transform), 0)
    return DataLoader(dataset, batch, sampler=sampler, num_workers=1, persistent_workers=True)


def _timm(root: Path, batch: int, mode: str, prefetcher: bool) -> Iterable[Any]:
    from timm.data import ImageDataset, create_loader

    loader = create_loader(
        ImageDataset(str(root / "train")),
        (3, PIXELS, PIXELS),
        batch,
        is_training=mode == "training",
        auto_augment=_POLICY,
        interpolation="bicubic",
        crop_pct=_CROP,
        re_prob=0.25,
        re_mode="pixel",
        num_workers=1,
        persistent_workers=True,
        use_prefetcher=prefetcher,
        device=torch.device("cpu"),
    )
    inner: Iterable[Any] = loader.loader if prefetcher else loader
    return inner


def _passage(loader: Iterable[Any]) -> Callable[[], object]:
    def once() -> None:
        for _ in loader:
            pass

    return once
