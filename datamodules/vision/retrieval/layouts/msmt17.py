"""`msmt17`: MSMT17 in versions 1 and 2, whose lists name the images.

Lines are `0000/0000_000_01_0303morning_0015_0.jpg 0`: the number after the path is the person, from
0; the third part of the file's name is the camera, 1 to 15 (from 0 here). The numbers of `test`
mean other people than those of `train`.
"""

from pathlib import Path

from blocks.errors import SuiteError
from datamodules.vision.layouts.request import listing, wrong
from datamodules.vision.retrieval.layouts.homes import homes, the_home
from datamodules.vision.retrieval.records import Listing, Record, Split, Wanted, in_order

MSMT17_TREE = """
  root/list_{train,val,query,gallery}.txt  with lines "0000/0000_000_01_0303morning_0015_0.jpg 0"
  root/{train,test}/0000/*.jpg  or root/{mask_train_v2,mask_test_v2}/0000/*.jpg
  (also in root/MSMT17_V1/, root/MSMT17_V2/, root/MSMT17/)"""

FOLDERS = {"train": ("train", "mask_train_v2"), "test": ("test", "mask_test_v2")}

_NAMES = ("MSMT17_V1", "MSMT17_V2", "MSMT17")


def is_msmt17(root: Path) -> bool:
    """Whether there is a list of queries."""
    return bool(homes(root, _NAMES, _has_lists))


def read_msmt17(wanted: Wanted) -> Listing:
    """Lists the layout `msmt17`."""
    home = the_home(homes(wanted.root, _NAMES, _has_lists), wanted.root, wanted.complain)
    if home is None:
        wanted.complain(wrong("msmt17", MSMT17_TREE, listing(wanted.root), wanted.root))
        return Listing("msmt17", wanted.root, ())
    lists: list[tuple[str, str, Split]] = [
        ("list_train.txt", "train", "train"),
        *([("list_val.txt", "train", "train")] if wanted.join_val else []),  # type: ignore[list-item]
        ("list_query.txt", "test", "query"),
        ("list_gallery.txt", "test", "gallery"),
    ]
    records: list[Record] = []
    for name, folder, split in lists:
        images = next((home / f for f in FOLDERS[folder] if (home / f).is_dir()), None)
        if not (home / name).is_file() or images is None:
            missing = home / (FOLDERS[folder][0] if images is None else name)
            if name != "list_train.txt":  # A copy for evaluation alone is fine.
                wanted.complain(wrong("msmt17", MSMT17_TREE, "nothing", missing))
            continue
        records += _read_list(home / name, images, split, wanted)
    return Listing("msmt17", home, in_order(records), shared_identities=False)


def _read_list(source: Path, images: Path, split: Split, wanted: Wanted) -> list[Record]:
    records = []
    for number, line in enumerate(source.read_text("utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        path, _, identity = line.strip().rpartition(" ")
        parts = Path(path).name.split("_")
        try:
            camera = int(parts[2]) - 1
            if camera < 0:
                raise ValueError
            records.append(Record(str(images / path.strip()), int(identity), camera, 0, split))
        except (IndexError, ValueError):
            wanted.complain(
                SuiteError(
                    expected='a line such as "0000/0000_000_01_0303morning_0015_0.jpg 0"',
                    found=repr(line[:120]),
                    where=f"{source}, line {number}",
                    cure="take the list of the original archive",
                )
            )
    return records


def _has_lists(folder: Path) -> bool:
    return (folder / "list_query.txt").is_file()
