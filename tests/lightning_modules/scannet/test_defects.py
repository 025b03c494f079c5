"""Defects of the reference BiFusion (Xin200203/3D_Reconstruction) that must not come back.

Numbers are those of the list in docs/scannet.md.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from blocks.errors import SuiteError
from blocks.sparse import Voxels
from lightning_modules.scannet import (
    BiFusion,
    CLIPTrunk,
    Consistency,
    InstanceSegmentation,
    PartialLoad,
    StageWeights,
)
from lightning_modules.scannet.fusion_schedule import gate_warmup
from lightning_modules.scannet.networks.clip_trunk import sample_patches
from lightning_modules.scannet.networks.fusion_gates import EnhancedGate
from lightning_modules.scannet.networks.local_attention import BallAttention
from tests.lightning_modules.scannet.frames import (
    PointwiseBackbone,
    small_batch,
    small_fusion,
    small_segmenter,
    small_task,
)


def training_loss(task: InstanceSegmentation, batch: dict[str, Any]) -> torch.Tensor:
    """The loss of a training step, without a trainer."""
    task.log_loss = lambda *_: None  # type: ignore[method-assign]
    task.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    loss: torch.Tensor = task._shared_step(batch, "train")["loss"]
    return loss


def fusion_of(task: InstanceSegmentation) -> BiFusion:
    assert task.fusion is not None
    return task.fusion


def test_1_late_blocks_of_clip_and_its_head_learn_and_the_ratio_counts() -> None:
    trunk = CLIPTrunk(dim=16, depth=2, num_heads=2, grid=2, frozen_blocks=1)
    network = small_segmenter(BiFusion(trunk, 12, 16))
    training_loss(InstanceSegmentation(network, agnostic=True), small_batch()).backward()
    grads = {name: p.grad for name, p in trunk.named_parameters()}
    assert all(grads[n] is None for n in grads if "resblocks.1." not in n)
    assert all(grads[n] is not None for n in grads if "resblocks.1." in n)
    head = fusion_of(InstanceSegmentation(network, agnostic=True)).head2d
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    image, points, group = torch.randn(9, 4), torch.randn(9, 4), torch.arange(9)
    grads_of = []
    for ratio in (1.0, 0.01):
        x = image.clone().requires_grad_()
        Consistency(gradient_flow_ratio=ratio).clip_loss(
            x, points, torch.ones(9).bool(), group
        ).backward()
        grads_of.append(x.grad)
    assert grads_of[0] is not None and grads_of[1] is not None
    torch.testing.assert_close(grads_of[1], 0.01 * grads_of[0])


def test_2_the_gate_ends_its_warm_up_and_is_evaluated_as_it_was_trained(tmp_path: Path) -> None:
    from tests.lightning_modules.scannet.test_instance_segmentation import Frames, trainer

    task, seen = small_task(), []
    gate = fusion_of(task).gate
    before = gate.point_mlp[0].weight.detach().clone()
    steps = 20
    gate.register_forward_hook(
        lambda module, _, out: seen.append(
            (module.training, bool((out[1][out[1] != 0.1] == 0.5).all()))
        )
    )
    run = trainer(
        tmp_path, max_epochs=steps, check_val_every_n_epoch=1, num_sanity_val_steps=0,
        limit_val_batches=1,
    )  # fmt: skip
    run.fit(task, Frames())
    assert gate_warmup(steps) == 2
    trained = [even for training, even in seen if training]
    evaluated = [even for training, even in seen if not training]
    assert trained == evaluated == [True] * 2 + [False] * (steps - 2)
    assert not torch.equal(gate.point_mlp[0].weight, before) and bool(gate.learned)


def test_3_augmentation_does_not_move_points_in_the_image() -> None:
    task, batch = small_task().eval(), small_batch()
    turned = dict(batch)
    turned["xyz"] = batch["xyz"] @ torch.tensor([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) * 1.2 + 0.1
    turned["grid_xyz"] = turned["xyz"]
    with torch.no_grad():
        plain, augmented = (task(b).fused for b in (batch, turned))
    assert plain is not None and augmented is not None
    assert torch.equal(plain.image, augmented.image)
    assert torch.equal(plain.valid, batch["uv_valid"])


def test_4_pixels_are_those_of_the_intrinsics() -> None:
    # A map that holds the pixel at the centre of each patch, read at off-centre pixels.
    x, y = torch.arange(40) * 16 + 7.5, torch.arange(30) * 16 + 7.5
    patches = torch.stack((x.expand(30, 40), y.unsqueeze(1).expand(30, 40)), -1).unsqueeze(0)
    uv = torch.tensor([[319.5, 239.5], [100.0, 50.0], [600.25, 400.75]])
    sample = torch.zeros(3).long()
    found = sample_patches(patches, uv, torch.tensor([[640, 480]]), sample)
    torch.testing.assert_close(found, uv, atol=1e-3, rtol=0)


def test_5_voxels_are_floors_of_elastic_coordinates() -> None:
    class Watched(PointwiseBackbone):
        seen: Voxels

        def forward(self, voxels: Voxels) -> torch.Tensor:
            self.seen = voxels
            return super().forward(voxels)

    task, batch = small_task(fusion=False), small_batch()
    backbone = Watched()
    task.segmenter.backbone = backbone
    batch["grid_xyz"] = batch["xyz"] + 0.33
    task(batch)
    voxels = backbone.seen
    places = voxels.coordinates[voxels.point_to_voxel, 1:]
    assert torch.equal(places, (batch["grid_xyz"] / 0.1).floor().long()) and places.min() < 0


def test_6_the_clip_loss_compares_each_point_with_its_own_pixel_where_it_has_one() -> None:
    image, points, group = torch.randn(12, 4), torch.randn(12, 4), torch.arange(12) // 3
    valid = torch.arange(12) < 9
    loss = Consistency(weight=1)
    first = loss.clip_loss(image, points, valid, group)
    other = torch.where(valid.unsqueeze(1), image, 9.0)
    assert torch.equal(loss.clip_loss(other, points, valid, group), first)
    shuffled = loss.clip_loss(image[torch.randperm(9).tolist() + [9, 10, 11]], points, valid, group)
    assert not torch.equal(shuffled, first)


def test_7_the_enhanced_gate_is_another_gate() -> None:
    lite, enhanced = small_fusion("lite"), small_fusion("enhanced")
    assert isinstance(enhanced.gate, EnhancedGate) and not isinstance(lite.gate, EnhancedGate)
    enhanced.gate.load_state_dict(lite.gate.state_dict(), strict=False)
    logits = []
    for gate in (lite.gate, enhanced.gate):
        torch.manual_seed(1)
        x, sample = torch.randn(2, 30, 16), torch.zeros(30).long()
        logits.append(gate.logit(x[0], x[1], sample, torch.rand(30, 3), torch.zeros(1, 3)))
    assert not torch.allclose(*logits)


def test_8_stages_weigh_the_loss() -> None:
    batch = small_batch()
    losses = []
    for enabled in (False, True):
        task = small_task(stages=StageWeights(enabled, normalize=False))
        torch.manual_seed(0)
        losses.append(training_loss(task, batch))
    # Without a trainer the progress is 1: the last stage, 0.45 of semantics and 0.5 of instances.
    assert 0.4 * losses[0] < losses[1] < 0.5 * losses[0]


def test_9_a_prefix_that_fits_nothing_is_an_error(tmp_path: Path) -> None:
    state = {f"backbone.{k}": v for k, v in PointwiseBackbone().state_dict().items()}
    state["head.weight"] = torch.zeros(2)
    torch.save(state, tmp_path / "a.pth")
    wrong = PartialLoad(str(tmp_path / "a.pth"), "backbone", (r"^backbone\.", "encoder."))
    with pytest.raises(SuiteError, match="0 entries loaded"):
        wrong.load(small_segmenter())
    right = PartialLoad(str(tmp_path / "a.pth"), "backbone", (r"^backbone\.", "backbone."))
    assert right.load(small_segmenter()).fraction == 1


def test_10_there_is_one_backbone_and_no_parameter_without_a_gradient() -> None:
    task = small_task()
    training_loss(task, small_batch()).backward()
    assert [n for n, p in task.named_parameters() if p.grad is None] == []
    backbones = [m for m in task.modules() if isinstance(m, PointwiseBackbone)]
    assert len(backbones) == 1


def test_11_every_loss_has_a_gradient() -> None:
    x, y = torch.randn(8, 4, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    for kind in ("logsig", "cosine", "infonce"):
        loss = Consistency(kind=kind).clip_loss(x, y, torch.ones(8).bool(), torch.arange(8))  # type: ignore[arg-type]
        assert loss.requires_grad


def test_12_missing_weights_and_images_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SuiteError):
        PartialLoad(str(tmp_path / "absent.bin"), "fusion.trunk").load(
            small_segmenter(small_fusion())
        )
    with pytest.raises(SuiteError, match="frames with images"):
        small_task()(small_batch(image=False))


def test_13_centres_belong_to_their_own_frame() -> None:
    layer, sample = BallAttention(8, num_heads=2).eval(), torch.zeros(50).long()
    x, first, second = torch.randn(50, 8), torch.rand(50, 3), torch.rand(50, 3)
    with torch.no_grad():
        fresh = layer(x, second, sample)
        layer(x, first, sample)
        assert torch.equal(layer(x, second, sample), fresh)
