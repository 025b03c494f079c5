"""Matching and losses against vectors of ESAM, and the samples that broke upstream."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lightning_modules.scannet.criterion import InstanceLoss, dice_loss
from lightning_modules.scannet.matching import (
    match,
    matching_cost,
    pairwise_bce,
    pairwise_dice,
    sparse_match,
)
from lightning_modules.scannet.networks.query_decoder import Decoded
from lightning_modules.scannet.targets import Targets
from tests.conftest import GOLDEN

FOLDER = GOLDEN / "scannet"
CONFIGS = json.loads((FOLDER / "decoder_postproc.json").read_text())["decoder"]
Case = tuple[dict[str, torch.Tensor], list[list[Decoded]], list[Targets], list[torch.Tensor]]


def upstream(name: str) -> Case:
    """Outputs and truths of ESAM, as ours."""
    vectors, config = load_file(FOLDER / f"decoder_{name}.safetensors"), CONFIGS[name]
    decoded, targets, queries = [], [], []
    for b in range(config["B"]):
        depths = []
        for depth, mode in enumerate(config["mask_pred_mode"]):
            last = depth == config["num_layers"]
            prefix = f"out/{b}/" if last else f"out/{b}/aux{depth}/"
            semantic = vectors[f"out/{b}/sem_preds"] if last else None
            found = vectors[prefix + "cls_preds"], vectors[prefix + "masks"]
            depths.append(Decoded(*found, mode == "P", semantic))
        decoded.append(depths)
        points, rows = vectors[f"gt/{b}/p_masks"].bool(), vectors[f"gt/{b}/gt_sp_masks"].bool()
        labels = vectors[f"gt/{b}/labels_3d"][: len(points)] * (not config["agnostic"])
        semantic = rows[len(points) :].int().argmax(0)
        targets.append(Targets(labels, points, rows[: len(points)], semantic))
        queries.append(vectors[f"gt/{b}/query_ids"])
    return vectors, decoded, targets, queries


@pytest.mark.parametrize("name", CONFIGS)
def test_costs_and_matches_equal_esam(name: str) -> None:
    vectors, decoded, targets, queries = upstream(name)
    for b, (outputs, target, chosen) in enumerate(zip(decoded, targets, queries, strict=True)):
        cost = matching_cost(outputs[-1], target)
        torch.testing.assert_close(cost, vectors[f"out/{b}/cost"], atol=2e-5, rtol=1e-4)
        for rule, prefix in (("sparse", "match"), ("hungarian", "hungarian")):
            query, instance = match(outputs[-1], target, chosen, rule)  # type: ignore[arg-type]
            assert torch.equal(query, vectors[f"out/{b}/{prefix}_query"])
            assert torch.equal(instance, vectors[f"out/{b}/{prefix}_gt"])


@pytest.mark.parametrize("name", CONFIGS)
def test_losses_equal_esam(name: str) -> None:
    vectors, decoded, targets, queries = upstream(name)
    terms = InstanceLoss().terms(decoded, targets, queries)
    torch.testing.assert_close(terms["loss_cls"] + terms["loss_mask"], vectors["out/inst_loss"])
    torch.testing.assert_close(terms["loss_sem"], vectors["out/seg_loss"])


def test_mean_dice_counts_every_output_alike() -> None:
    _, decoded, targets, queries = upstream("agnostic")
    mean = InstanceLoss(dice_mode="mean", bce=0).terms(decoded, targets, queries)["loss_mask"]
    expected = torch.zeros(())
    for depth in range(4):
        for sample, target, chosen in zip(decoded, targets, queries, strict=True):
            query, instance = match(sample[depth], target, chosen)
            truth = target.masks(sample[depth].over_points)[instance].float()
            expected = expected + dice_loss(sample[depth].masks[query], truth) / 2
    torch.testing.assert_close(mean, expected)


def test_pairs_equal_the_plain_formulas() -> None:
    logits, truth = torch.randn(3, 50), (torch.rand(2, 50) > 0.5).float()
    for q in range(3):
        for g in range(2):
            bce = torch.nn.functional.binary_cross_entropy_with_logits(logits[q], truth[g])
            torch.testing.assert_close(pairwise_bce(logits, truth)[q, g], bce)
            dice = dice_loss(logits[q : q + 1], truth[g : g + 1])
            torch.testing.assert_close(pairwise_dice(logits, truth)[q, g], dice)


def test_a_single_query_may_be_matched() -> None:
    query, instance = sparse_match(torch.tensor([[0.3]]), torch.tensor([[True]]))
    assert (query.tolist(), instance.tolist()) == ([0], [0])
    assert len(sparse_match(torch.tensor([[0.3]]), torch.tensor([[False]]))[0]) == 0


def test_ties_and_strangers_stay_unmatched_and_a_query_may_serve_two() -> None:
    inside = torch.tensor([[True, True], [True, False], [False, False]])
    assert len(sparse_match(torch.tensor([[0.5], [0.5]]), torch.ones(2, 1).bool())[0]) == 0
    cost = torch.tensor([[0.1, 0.2], [0.4, 0.0], [0.0, 0.0]])
    query, instance = sparse_match(cost, inside)
    assert list(zip(query.tolist(), instance.tolist(), strict=True)) == [(0, 0), (0, 1)]


def test_frames_without_instances_give_finite_losses_and_gradients() -> None:
    masks = torch.randn(5, 30, requires_grad=True)
    classes, semantic = torch.randn(5, 2, requires_grad=True), torch.randn(5, 11)
    nothing = Targets(
        torch.zeros(0).long(),
        torch.zeros(0, 30).bool(),
        torch.zeros(0, 5).bool(),
        torch.full((5,), 10),
    )
    terms = InstanceLoss().terms(
        [[Decoded(classes, masks, True, semantic)]], [nothing], [torch.arange(5)]
    )
    assert terms["loss_mask"] == 0 and terms["loss_sem"] == 0 and terms["loss_cls"] > 0
    torch.stack(list(terms.values())).sum().backward()
    assert classes.grad is not None and classes.grad.abs().sum() > 0
    assert masks.grad is not None and masks.grad.isfinite().all()


def test_losses_stay_in_float32_under_autocast() -> None:
    _, decoded, targets, queries = upstream("agnostic")
    plain = InstanceLoss().terms(decoded, targets, queries)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = InstanceLoss().terms(decoded, targets, queries)
    for name, value in plain.items():
        assert torch.equal(value, mixed[name]) and value.dtype == torch.float32
