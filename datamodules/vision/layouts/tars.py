"""`tars`: the archives of ILSVRC 2012 as they were downloaded, read in place.

The training archive holds one archive for each class; the validation archive is flat. Where their
images lie is looked up once and kept in the cache; nothing is unpacked.
"""

from collections.abc import Sequence
from pathlib import Path

from datamodules.vision.imagenet_labels import read_ground_truth, read_label_list, some
from datamodules.vision.layouts.cached_index import Arrays, cached_arrays
from datamodules.vision.layouts.class_folders import LABEL_LISTS
from datamodules.vision.layouts.development_kit import GROUND_TRUTH, META, kit_file
from datamodules.vision.layouts.request import LabelledImages, Request, listing, nothing, wrong
from datamodules.vision.layouts.tar_source import Member, TarSource, member_arrays, members

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
TARS_TREE = f"""
  root/{TRAIN}  of <wnid>.tar
  root/{VAL}
  root/ILSVRC2012_devkit_t12.tar.gz  (or unpacked, or a val.txt)"""


def is_tars(root: Path) -> bool:
    """Whether the validation archive is there."""
    return (root / VAL).is_file()


def read_tars(request: Request) -> LabelledImages:
    """Lists the layout `tars`."""
    root = request.root
    for name in (TRAIN, VAL):
        if not (root / name).is_file():
            raise wrong("tars", TARS_TREE, f"no {name}: {listing(root)}", root)
    train = root / TRAIN
    classes = sorted(members(train), key=lambda member: member.name)
    class_names = tuple(Path(member.name).stem for member in classes)
    if not classes or any(not member.name.endswith(".tar") for member in classes):
        found = f"members {some([member.name for member in classes])}"
        raise wrong("tars", TARS_TREE, found, train, cure="download the archive of Task 1 & 2")
    train_images = nothing()
    if request.train:
        index = cached_arrays("tars_train_v1", [train], lambda: _index_train(train, classes))
        counts = set(index["labels"].tolist())
        if empty := [name for label, name in enumerate(class_names) if label not in counts]:
            error = wrong("tars", TARS_TREE, f"no image in {some(empty)}", train, TarSource.cure)
            request.complain(error)
        train_images = TarSource([train], **index)
    index = cached_arrays("tars_val_v1", [root / VAL], lambda: _index_val(root / VAL))
    return LabelledImages(class_names, train_images, _labelled(request, index, class_names))


def _index_train(train: Path, classes: Sequence[Member]) -> Arrays:
    found = []
    with train.open("rb") as file:
        for label, inner in enumerate(classes):
            file.seek(inner.offset)
            images = list(members(train, file, inner.offset + inner.size))
            found += [(0, image, label) for image in sorted(images, key=lambda m: m.name)]
    return member_arrays(found)


def _index_val(val: Path) -> Arrays:
    found = sorted(members(val), key=lambda member: Path(member.name).name)
    return member_arrays([(0, member, -1) for member in found])


def _labelled(request: Request, index: Arrays, class_names: tuple[str, ...]) -> TarSource:
    root = request.root
    names = [Path(name.decode()).name for name in index["name"]]
    source = next((root / name for name in LABEL_LISTS if (root / name).is_file()), None)
    truth, meta = kit_file(root, GROUND_TRUTH), kit_file(root, META)
    if source is not None:
        by_name = read_label_list(source, class_names)
        labels = [by_name.get(name, -1) for name in names]
    elif truth is not None and meta is not None:
        source, labels = truth, read_ground_truth(truth, meta, class_names)
    else:
        raise wrong("tars", TARS_TREE, "validation images without labels", root)
    if len(labels) != len(names) or -1 in labels:
        raise wrong(
            "tars",
            TARS_TREE,
            f"{len(labels) - labels.count(-1)} labels for {len(names)} images",
            source,
            cure="complete the download: every image of the archive needs its label",
        )
    return TarSource([root / VAL], **{**index, "labels": index["labels"] * 0 + labels})
