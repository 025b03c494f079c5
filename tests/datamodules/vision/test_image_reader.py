"""Images of every mode become RGB; damaged ones are named."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from datamodules.sampling import EvalSampler, SeededDataset
from datamodules.vision.image_reader import ImageReader, Item, find_images, open_rgb

NOISE = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "mode, suffix",
    [
        ("L", ".jpg"),
        ("CMYK", ".JPEG"),
        ("P", ".gif"),
        ("LA", ".png"),
        ("RGBA", ".PNG"),
        ("1", ".bmp"),
    ],
)
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"image{suffix}"
    Image.new("RGB", (5, 3), (255, 255, 255)).convert(mode).save(path)
    sample = ImageReader([Item(str(path), 7)])[0]
    assert (sample["image"].mode, sample["image"].size) == ("RGB", (5, 3))
    assert np.asarray(sample["image"]).min() >= 250
    assert (sample["label"], sample["path"], sample["index"]) == (7, str(path), 0)


def test_a_png_named_jpeg_is_read_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "n02105855_2933.JPEG"
    Image.fromarray(NOISE).save(path, format="PNG")
    assert np.array_equal(np.asarray(ImageReader([Item(str(path), 0)])[0]["image"]), NOISE)


def test_a_broken_exif_block_disturbs_nobody(tmp_path: Path) -> None:
    path = tmp_path / "photo.JPEG"
    # A directory of one entry whose value lies beyond the block's end.
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x1a\x01\x05\0\x01\0\0\0\xff\xff\0\0\0\0\0\0"
    Image.fromarray(NOISE).save(path, exif=exif, quality=95)
    with pytest.warns(UserWarning, match="Truncated File Read"), Image.open(path):
        pass
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # An error in the block would be one in the image.
        assert open_rgb(str(path)).size == (40, 40)


def test_an_rgb_image_is_not_copied_and_leaves_no_file_open(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(NOISE).save(path)
    image = open_rgb(str(path))
    assert np.array_equal(np.asarray(image), NOISE)
    path.unlink()
    assert image.resize((3, 3)).size == (3, 3)


def test_paths_beyond_ascii_survive(tmp_path: Path) -> None:
    paths = [tmp_path / "é 1.png", tmp_path / "long-日本.png"]
    for path in paths:
        Image.fromarray(NOISE).save(path)
    reader = ImageReader([Item(str(path), 0) for path in paths])
    assert [reader[i]["path"] for i in range(2)] == [str(path) for path in paths]


def damaged_file(folder: Path, kind: str) -> Path:
    path = folder / f"{kind}.jpg"
    if kind == "truncated":
        Image.fromarray(NOISE).save(path)
        path.write_bytes(path.read_bytes()[:-200])
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "empty":
        path.touch()
    return path


def refusal(path: Path, num_workers: int) -> list[str]:
    dataset = SeededDataset(ImageReader([Item(str(path), 0)]), lambda sample: sample, seed=0)
    loader = DataLoader(dataset, sampler=EvalSampler(1), num_workers=num_workers)
    with pytest.raises(SuiteError) as caught:
        next(iter(loader))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    "kind, found",
    [
        ("truncated", "truncated"),
        ("text", "cannot identify"),
        ("empty", "cannot identify"),
        ("missing", "no such file"),
    ],
)
def test_a_damaged_file_is_named_with_its_cure(tmp_path: Path, kind: str, found: str) -> None:
    path = damaged_file(tmp_path, kind)
    lines = refusal(path, num_workers=0)
    assert [line.split(":")[0] for line in lines] == ["expected", "found", "where", "cure"]
    assert found in lines[1]
    assert lines[2] == f"where: {path}"
    assert "copy or download the file again" in lines[3]


def test_a_worker_tells_of_a_damaged_file_in_the_same_words(tmp_path: Path) -> None:
    path = damaged_file(tmp_path, "truncated")
    # torch takes 5 s to give up a worker that raised.
    assert refusal(path, num_workers=1) == refusal(path, num_workers=0)


def test_images_are_found_in_order_below_a_folder_whatever_their_suffixs_case(
    tmp_path: Path,
) -> None:
    for name in ("b/2.JPEG", "b/1.png", "a.TIFF", "b/c/3.webp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for name in (".DS_Store", "Thumbs.db", "b/._1.png", "readme.txt", "png"):
        (tmp_path / name).touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "4.png").touch()
    found = [Path(path).relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["a.TIFF", "b/1.png", "b/2.JPEG", "b/c/3.webp"]
