"""Labels of ImageNet's validation images, where these lie in one folder: two kinds of text file.

A class's index is the place of its name (wnid) in sorted order, in both.
"""

from pathlib import Path
from typing import Any

from blocks.errors import SuiteError


def read_label_list(source: Path, class_names: tuple[str, ...]) -> dict[str, int]:
    """Class index by file name, from lines "<file> <label>" (Caffe's `val.txt`).

    Args:
        source: The text file. Its labels are class names when all of them are among `class_names`,
            otherwise indices that count from 0.
        class_names: Names in index order.

    Raises:
        SuiteError: Anything else, above all indices that count from 1.
    """
    lines = [line.rsplit(maxsplit=1) for line in source.read_text("utf-8").splitlines() if line]
    if not lines or any(len(line) != 2 for line in lines):
        raise _wrong_list(source, "a line without a label" if lines else "an empty file")
    # Lists made elsewhere may carry a folder before the file's name.
    names = [Path(name).name for name, _ in lines]
    labels = [label for _, label in lines]
    place = {name: index for index, name in enumerate(class_names)}
    if all(label in place for label in labels):
        return dict(zip(names, (place[label] for label in labels), strict=True))
    if not all(label.isdecimal() for label in labels):
        unknown = sorted({label for label in labels if label not in place})
        raise _wrong_list(source, f"labels that are no class of train: {some(unknown)}")
    indices = [int(label) for label in labels]
    if min(indices) == 1 and max(indices) == len(class_names):
        raise _wrong_list(
            source,
            f"indices that count from 1 (1 to {len(class_names)})",
            cure="if they follow the sorted class names, subtract 1 from each; if they are "
            "ILSVRC2012_IDs, which follow another order, use data.init_args.layout: devkit",
        )
    if max(indices) >= len(class_names):
        raise _wrong_list(source, f"index {max(indices)} for {len(class_names)} classes in train")
    return dict(zip(names, indices, strict=True))


def read_ground_truth(truth: Path, meta: Path, class_names: tuple[str, ...]) -> list[int]:
    """Class indices of the validation images by name, from the development kit of ILSVRC 2012.

    Line i of `truth` is the ILSVRC2012_ID of image i. IDs do not follow the sorted wnids; `meta`
    translates.

    Args:
        truth: `ILSVRC2012_validation_ground_truth.txt`.
        meta: `meta.mat`, a MATLAB table of synsets.
        class_names: Wnids in index order.

    Raises:
        SuiteError: A file cannot be read, or the three do not agree.
    """
    wnid_of = _leaf_synsets(meta)
    if sorted(wnid_of.values()) != list(class_names):
        differ = sorted(set(wnid_of.values()) ^ set(class_names))
        raise SuiteError(
            expected=f"a train folder for every class of {meta.name}, and no other",
            found=f"only in one of them: {some(differ)}",
            where=str(meta),
            cure="complete the train folder, or use data.init_args.layout: flat with a val.txt",
        )
    place = {wnid: index for index, wnid in enumerate(class_names)}
    words = truth.read_text("utf-8").split()
    unknown = sorted({word for word in words if not word.isdecimal() or int(word) not in wnid_of})
    if unknown:
        raise SuiteError(
            expected=f"one ILSVRC2012_ID a line, each a class of {meta.name}",
            found=some(unknown),
            where=str(truth),
            cure="take both files from the same development kit (ILSVRC2012_devkit_t12)",
        )
    return [place[wnid_of[int(word)]] for word in words]


def some(names: list[str]) -> str:
    """The first three names and the number of the others, for a message."""
    if not names:
        return "nothing"
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _leaf_synsets(meta: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> wnid of the classes. Inner nodes of the tree have IDs too; they stay out."""
    from scipy.io import loadmat

    try:
        synsets: Any = loadmat(meta, squeeze_me=True)["synsets"]
        return {
            int(synset["ILSVRC2012_ID"]): str(synset["WNID"])
            for synset in synsets
            if int(synset["num_children"]) == 0
        }
    except Exception as error:  # scipy raises almost anything on a damaged file.
        raise SuiteError(
            expected="a MATLAB file with the table synsets (ILSVRC2012_ID, WNID, num_children)",
            found=f"a file that cannot be read ({error})",
            where=str(meta),
            cure="unpack ILSVRC2012_devkit_t12.tar.gz again",
        ) from error


def _wrong_list(source: Path, found: str, cure: str = "") -> SuiteError:
    return SuiteError(
        expected='lines "<file> <label>", the label a class name or a class index from 0',
        found=found,
        where=str(source),
        cure=cure or "correct the list; a class's index is the place of its folder among train's",
    )
