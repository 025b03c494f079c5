"""The 200 classes, their order, and the two orders that are about."""

from collections import Counter
from pathlib import Path

import numpy as np

from datamodules.scannet.classes import (
    CLASS_IDS,
    CLASSES,
    IGNORE,
    THINGS,
    places_of,
    swap_stuff_first,
    thing_places,
)
from datamodules.scannet.scannet_info import places_in


def test_the_official_order_has_chair_before_floor() -> None:
    assert [entry.name for entry in CLASSES[:4]] == ["wall", "chair", "floor", "table"]
    assert len(CLASSES) == 200 and list(CLASS_IDS) == sorted(set(CLASS_IDS))
    assert [len(places_in(group)) for group in ("head", "common", "tail")] == [64, 68, 66]
    assert Counter(CLASSES[place].in_val for place in THINGS)[False] == 11


def test_the_swap_is_that_of_upstream_and_undoes_itself(golden: Path) -> None:
    arrays = np.load(golden / "scannet" / "annotations.npz")
    swapped = swap_stuff_first(arrays["swap/in"])
    np.testing.assert_array_equal(swapped, arrays["swap/out"])
    np.testing.assert_array_equal(swap_stuff_first(swapped), arrays["swap/in"])


def test_ids_outside_the_classes_are_ignored() -> None:
    ids = np.array([1, 2, 3, 1191, 0, 12, -5, 1357, 99_999])
    assert places_of(ids).tolist() == [0, 1, 2, 199, *[IGNORE] * 5]
    assert thing_places()[:3].tolist() == [1, 3, 4] and len(thing_places()) == 198
