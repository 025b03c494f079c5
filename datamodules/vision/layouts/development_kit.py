"""Finds the files of ILSVRC 2012's development kit, unpacked or still in its archive."""

import tarfile
from pathlib import Path

from blocks.errors import SuiteError
from blocks.files import atomic_path, cache_dir
from datamodules.info import digest

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
_KIT = "ILSVRC2012_devkit_t12"


def kit_file(root: Path, name: str) -> Path | None:
    """A file of the kit; out of `ILSVRC2012_devkit_t12.tar.gz` it is copied to the cache.

    Args:
        root: Folder of the data set.
        name: `GROUND_TRUTH` or `META`.

    Raises:
        SuiteError: The archive is damaged.
    """
    val = (root / folder for folder in ("val", "validation"))
    folders = (root, *val, root / _KIT / "data", root / _KIT, root / "data")
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    archive = root / f"{_KIT}.tar.gz"
    return _unpacked(archive, name) if archive.is_file() else None


def _unpacked(archive: Path, name: str) -> Path | None:
    stat = archive.stat()
    key = digest([str(archive.absolute()), str(stat.st_size), str(stat.st_mtime_ns)])
    target = cache_dir() / "imagenet_devkit" / key / name
    if target.is_file():
        return target
    try:
        with tarfile.open(archive) as tar:
            member = next((m for m in tar if Path(m.name).name == name and m.isfile()), None)
            file = tar.extractfile(member) if member else None
            if file is None:
                return None
            with atomic_path(target) as temporary:
                temporary.write_bytes(file.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SuiteError(
            expected="the development kit of ILSVRC 2012 as a .tar.gz archive",
            found=f"an archive that cannot be read ({error})",
            where=str(archive),
            cure="copy or download it again",
        ) from error
    return target
