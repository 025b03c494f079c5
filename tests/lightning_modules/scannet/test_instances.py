"""Reading instances against vectors of ESAM; specks; masks over superpoints."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lightning_modules.scannet.instances import Inference, matrix_nms, read_instances
from lightning_modules.scannet.specks import without_specks
from tests.conftest import GOLDEN

FOLDER = GOLDEN / "scannet"
CASES = [
    (name, setting, facts)
    for name, settings in json.loads((FOLDER / "decoder_postproc.json").read_text())[
        "postproc"
    ].items()
    for setting, facts in settings.items()
]


@pytest.mark.parametrize(("name", "setting", "facts"), CASES)
def test_instances_equal_esam(name: str, setting: str, facts: dict[str, int]) -> None:
    vectors = load_file(FOLDER / f"postproc_{name}.safetensors")
    kernel, scaling = setting.split("_")
    inference = Inference(
        topk=facts["topk_insts"],
        nms=kernel,  # type: ignore[arg-type]
        normalize_by_mask=scaling == "norm",
        min_points=facts["npoint_thr"],
    )
    found = read_instances(vectors["in/cls_preds"], vectors["in/masks"], inference)
    assert torch.equal(found.masks, vectors[f"{setting}/mask"].bool())
    assert torch.equal(found.labels, vectors[f"{setting}/labels"])
    torch.testing.assert_close(found.scores, vectors[f"{setting}/scores"], atol=1e-5, rtol=1e-4)


def test_a_duplicate_loses_its_score_and_another_class_keeps_it() -> None:
    masks = torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    new, order = matrix_nms(masks, torch.tensor([0, 0, 0]), scores)
    assert order.tolist() == [0, 2, 1] and new.tolist() == pytest.approx([0.9, 0.7, 0])
    new, order = matrix_nms(masks, torch.tensor([0, 1, 0]), scores)
    assert order.tolist() == [0, 1, 2] and new.tolist() == pytest.approx([0.9, 0.8, 0.7])


def test_masks_over_superpoints_become_masks_over_points() -> None:
    superpoint = torch.tensor([0, 0, 1, 2, 2])
    logits = torch.tensor([[9.0, -9, -9], [-9, 9, 9]])
    classes = torch.tensor([[5.0, 0], [4.0, 0]])
    given = Inference(min_points=1, nms="none")
    found = read_instances(classes, logits, given, superpoint=superpoint)
    assert found.masks.tolist() == [
        [True, True, False, False, False],
        [False, False, True, True, True],
    ]


def test_no_queries_above_the_thresholds_give_an_empty_answer() -> None:
    found = read_instances(torch.randn(4, 2), torch.full((4, 50), -9.0), Inference())
    assert found.masks.shape == (0, 50) and len(found.labels) == len(found.scores) == 0


def test_specks_go_and_touching_parts_stay() -> None:
    line = torch.stack([torch.tensor([0.03 * i, 0, 0]) for i in range(30)])
    far = torch.tensor([[0.0, 1.0, 1.0], [0.01, 1.0, 1.0]])
    corner = line[-1:] + 0.04
    xyz = torch.cat((line, far, corner))
    masks = torch.ones(1, len(xyz)).bool()
    kept = without_specks(masks, xyz, 5)[0]
    assert kept[:30].all() and not kept[30:32].any() and kept[32]
    cut = masks.clone()
    cut[0, 10:14] = False  # A gap of 12 cm.
    assert without_specks(cut, xyz, 15)[0].nonzero().flatten().tolist() == [*range(14, 30), 32]
