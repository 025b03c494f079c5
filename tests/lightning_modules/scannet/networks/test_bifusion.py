"""Parts of the fusion against vectors of the reference, and its budget of parameters."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from lightning_modules.scannet import BiFusion, CLIPTrunk
from lightning_modules.scannet.networks.bifusion import FiLM, ImageHead, PointHead, View
from lightning_modules.scannet.networks.fusion_gates import LiteGate
from lightning_modules.scannet.networks.geometry_code import assembled, geometry_code
from lightning_modules.scannet.networks.local_attention import BallAttention, PatchAttention
from tests.conftest import GOLDEN
from tests.lightning_modules.scannet.frames import small_batch, small_fusion

VECTORS = load_file(GOLDEN / "scannet" / "bifusion.safetensors")


def load(module: nn.Module, prefix: str, drop: str = "nothing") -> nn.Module:
    state = {k.removeprefix(prefix): v for k, v in VECTORS.items() if k.startswith(prefix)}
    state = {key: value for key, value in state.items() if not key.startswith(drop)}
    if "learned" in dict(module.named_buffers()):
        state["learned"] = torch.tensor(True)
    module.load_state_dict(state)
    return module.eval()


def close(found: torch.Tensor, name: str) -> None:
    torch.testing.assert_close(found, VECTORS[name], atol=2e-5, rtol=1e-4)


def test_geometric_code_equals_the_reference() -> None:
    xyz, box = VECTORS["xyz"], VECTORS["pe_in_bbox"]
    camera = VECTORS["pe_in_pose"].expand(len(xyz), 9)
    close(assembled(xyz, box, camera, xyz[:, 2:]), "pe")


def test_film_heads_and_attention_equal_the_reference() -> None:
    film = load(FiLM(64, 256), "film.")
    image, points = film(VECTORS["pe"], VECTORS["f2d"], VECTORS["f3d"])
    close(image, "film/out2d")
    close(points, "film/out3d")
    close(load(PointHead(96, 256), "head3d.")(VECTORS["head3d/in"]), "head3d/out")
    head = load(ImageHead(48, 32, 16), "head2d_small.", drop="spatial_projection")
    close(head(VECTORS["head2d_small/in_global"]), "head2d_small/out_global")
    attention = load(PatchAttention(32), "tinysa2d.")
    found = attention(VECTORS["tinysa2d/in"].permute(0, 2, 3, 1))
    close(found.permute(0, 3, 1, 2), "tinysa2d/out")


@pytest.mark.parametrize(("learned", "name"), [(True, "gate_eval"), (False, "gate_early")])
def test_the_gate_equals_the_reference_before_and_after_its_warm_up(
    learned: bool, name: str
) -> None:
    gate = load(LiteGate(), "gate.")
    gate.learned.fill_(learned)  # type: ignore[operator]
    sample, nowhere = torch.zeros(120).long(), torch.zeros(1, 3)
    given = VECTORS["f2d"], VECTORS["f3d"], VECTORS["valid"].bool(), sample, 1
    fused, share = gate(*given, VECTORS["xyz"], nowhere)
    close(fused, f"{name}/fused")
    close(share, f"{name}/alpha")


@pytest.mark.parametrize(("depth", "trunk"), [(4, 29_094_912), (6, 43_270_656)])
def test_the_budget_of_parameters(depth: int, trunk: int) -> None:
    with torch.device("meta"):
        fusion = BiFusion(CLIPTrunk(depth=depth))
    sizes = {
        name: sum(p.numel() for p in part.parameters()) for name, part in fusion.named_children()
    }
    assert sizes["gate"] == 41_361 and sizes["film"] == 74_368 and sizes["pe_mlp"] == 4_160
    assert sizes["gate"] + sizes["film"] + sizes["pe_mlp"] == 119_889
    assert sizes["head2d"] == 526_592 and sizes["head3d"] == 91_648 and sizes["trunk"] == trunk


def view_of(batch: dict[str, torch.Tensor]) -> View:
    names = ("image", "uv", "uv_valid", "image_size", "original_xyz", "pose")
    return View(*(batch[name] for name in names))


@pytest.mark.parametrize(
    "options", [{}, {"gate": "enhanced"}, {"patch_attention": True, "ball_attention": True}]
)
def test_every_parameter_learns(options: dict[str, bool]) -> None:
    batch = small_batch()
    # Wide enough that no bottleneck of the gate starts dead.
    fusion = small_fusion(channels=64, **options)  # type: ignore[arg-type]
    x = torch.randn(len(batch["xyz"]), 12, requires_grad=True)
    fused = fusion(x, view_of(batch), batch["sample"], batch["superpoint"])
    torch.testing.assert_close(fused.unified.norm(dim=1), torch.ones(len(x)))
    assert (fused.share[~fused.valid] == 0.1).all()
    (fused.features * torch.randn_like(fused.features)).sum().backward()
    still = [
        name
        for name, p in fusion.named_parameters()
        if (p.grad is None or not p.grad.abs().sum() > 0)
    ]
    assert not still and x.grad is not None


@pytest.mark.parametrize("gate", ["lite", "enhanced"])
def test_a_sample_is_fused_alike_alone_and_in_a_batch(gate: str) -> None:
    batch = small_batch()
    fusion = small_fusion(gate, ball_attention=True).eval()
    x = torch.randn(len(batch["xyz"]), 12)
    with torch.no_grad():
        both = fusion(x, view_of(batch), batch["sample"], batch["superpoint"]).features
        for i in range(2):
            here = batch["sample"] == i
            view = View(
                batch["image"][i : i + 1], batch["uv"][here], batch["uv_valid"][here],
                batch["image_size"][i : i + 1], batch["xyz"][here], batch["pose"][i : i + 1],
            )  # fmt: skip
            first = batch["superpoint"][here].min()
            alone = fusion(
                x[here], view, batch["sample"][here] * 0, batch["superpoint"][here] - first
            )
            torch.testing.assert_close(alone.features, both[here], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("channels", [16, 256])
def test_fused_features_have_the_scale_of_a_backbone_at_any_width(channels: int) -> None:
    batch, fusion = small_batch(), small_fusion(channels=channels).eval()
    x = torch.randn(len(batch["xyz"]), 12)
    fused = fusion(x, view_of(batch), batch["sample"], batch["superpoint"])
    # Vectors of length 1 would have channels of 1/4 and 1/16, times those of the gate.
    assert 0.25 < fused.features.square().mean().sqrt() < 1


def test_the_relative_code_does_not_depend_on_the_unit() -> None:
    batch = small_batch(samples=1)
    pose = batch["pose"].clone()
    pose[:, :3, 3] = torch.tensor([1.0, 2, 3])
    given = batch["superpoint"], batch["sample"]
    metres = geometry_code(batch["xyz"], *given, pose)
    pose[:, :3, 3] *= 100
    centimetres = geometry_code(100 * batch["xyz"], *given, pose)
    torch.testing.assert_close(metres, centimetres, atol=1e-4, rtol=1e-3)
    assert metres.shape[1] == 64 and metres[:, -1].min() == 0


def test_ball_attention_reaches_as_far_as_its_ball() -> None:
    torch.manual_seed(0)
    layer = BallAttention(8, num_heads=2).eval()
    near = torch.rand(40, 3)
    xyz = torch.cat((near, near + 5))
    x, sample = torch.randn(80, 8), torch.zeros(80).long()
    with torch.no_grad():
        found = layer(x, xyz, sample)
        changed = x.clone()
        changed[0] = torch.randn(8)
        difference = (layer(changed, xyz, sample) - found).abs().amax(1)
    assert found.isfinite().all() and (difference[1:40] > 0).sum() > 5
    assert (difference[40:] == 0).all()
