"""The Mamba-GCN networks reduce to MotionAGFormer; the hybrid streams, and does not know T."""

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.macs import count_macs
from blocks.weights import load_weights
from lightning_modules.pose import HybridLifter, MambaGCNFormer, MotionAGFormer
from lightning_modules.pose.networks.inferred import inferred_configuration
from lightning_modules.pose.networks.mamba_gcn_former import block_places
from tests.conftest import GOLDEN, ROOT

SMALL = {"depth": 4, "dim": 16, "num_frames": 9, "num_heads": 2, "dim_rep": 16}
CLIP = torch.randn(2, 9, 17, 3, generator=torch.Generator().manual_seed(0))


def randomised(network: nn.Module) -> nn.Module:
    """With layer scales and weights that make every part matter."""
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in network.named_parameters():
            if "scale" in name or "pos_embed" in name or "correction" in name:
                p.copy_(0.5 * torch.randn(p.shape, generator=rng))
    return network.eval()


@pytest.mark.parametrize("placement", ["after", "inside"])
@pytest.mark.parametrize("mode", ["adaptive", "fixed"])
def test_with_alpha_0_it_is_the_baseline_to_the_bit(placement: str, mode: str) -> None:
    torch.manual_seed(0)
    baseline = randomised(MotionAGFormer(**SMALL))
    with torch.no_grad():
        for layer in baseline.layers:
            layer.fusion.weight.normal_()
    ours = MambaGCNFormer(
        **SMALL, placement=placement, fusion_alpha=0, fusion_mode=mode, mamba_gcn_layers=2,
        mamba_gcn_dim=32,
    )  # fmt: skip
    state = ours.adapt_state_dict(baseline.state_dict())
    report = load_weights(ours, state, source="baseline", allow_fresh=ours.fresh_entries())
    assert "mamba_gcn" in str(report)
    assert torch.equal(randomised_block(ours).eval()(CLIP), baseline(CLIP))


def randomised_block(network: MambaGCNFormer) -> nn.Module:
    randomised(network.mamba_gcn)
    return network


def test_a_third_stream_starts_with_its_share_beside_weights_of_a_baseline() -> None:
    baseline = MotionAGFormer(**SMALL)
    ours = MambaGCNFormer(**SMALL, placement="inside", fusion_alpha=0.3, mamba_gcn_layers=1)
    state = ours.adapt_state_dict(baseline.state_dict())
    shares = state["layers.3.fusion.bias"].softmax(0)
    torch.testing.assert_close(shares, torch.tensor([0.35, 0.35, 0.3]))
    fresh = ours.layers[3].fusion.bias.softmax(0)
    torch.testing.assert_close(fresh, torch.tensor([0.35, 0.35, 0.3]))


@pytest.mark.parametrize("placement", ["after", "inside"])
def test_every_parameter_of_a_block_learns(placement: str) -> None:
    network = randomised(MambaGCNFormer(**SMALL, placement=placement, mamba_gcn_layers=2)).train()
    network(CLIP).square().mean().backward()
    for name, p in network.named_parameters():
        assert p.grad is not None and (p.grad != 0).any(), name


def test_fixed_shares_do_not_learn() -> None:
    network = MambaGCNFormer(**SMALL, placement="inside", fusion_mode="fixed", mamba_gcn_layers=1)
    assert not network.layers[3].fusion.weight.requires_grad
    assert network.layers[2].fusion.weight.requires_grad


def test_added_parameters_at_the_defaults() -> None:
    for dim, added in ((64, 428_812), (128, 940_300)):
        given = {"depth": 12, "dim": dim, "num_frames": 27}
        with torch.device("meta"):
            counts = [
                sum(p.numel() for p in network.parameters())
                for network in (MambaGCNFormer(**given), MotionAGFormer(**given))
            ]
        assert counts[0] - counts[1] == added


def test_blocks_are_evenly_spaced() -> None:
    assert block_places(12, 4) == (2, 5, 8, 11)
    assert block_places(16, 3) == (4, 9, 15)


@pytest.mark.parametrize("given", [{"fusion_alpha": 1.0}, {"mamba_gcn_layers": 5}])
def test_senseless_choices_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(SuiteError, match="cure: 4 blocks"):
        MambaGCNFormer(**SMALL, **given)


def test_a_configuration_is_read_off_a_file_and_a_wrong_one_refused() -> None:
    vectors = load_file(GOLDEN / "pose" / "agf_hierarchical.safetensors")
    state = {k[3:]: v for k, v in vectors.items() if k.startswith("sd/")}
    found = inferred_configuration(state)
    network = MotionAGFormer(**found, num_heads=4, neighbours=3)
    network.load_state_dict(network.adapt_state_dict(state))
    with pytest.raises(SuiteError, match="depth: 1.*num_frames: 9"):
        MotionAGFormer(**SMALL | {"num_frames": 27}).adapt_state_dict(state)
    with pytest.raises(SuiteError, match="no entry joints_embed"):
        inferred_configuration({"a": torch.zeros(1)})


def hybrid(**given: object) -> HybridLifter:
    torch.manual_seed(0)
    network = HybridLifter(depth=3, dim=16, d_inner=32, dim_rep=16, **given)
    for layer in network.layers:
        graph = layer.graph_spatial.mixer
        graph.batch_norm.running_mean.normal_()
    randomised(network)
    return network


def test_a_stream_equals_the_clip() -> None:
    network = hybrid(causal=True)
    expected = network(CLIP)
    state = network.allocate_state(2)
    before = state.nbytes
    found = torch.stack([network.step(CLIP[:, t], state) for t in range(9)], 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert state.nbytes == before


def test_no_later_frame_reaches_a_causal_pose() -> None:
    changed = CLIP.clone()
    changed[:, 5:] += 1
    causal, both = hybrid(causal=True), hybrid()
    torch.testing.assert_close(causal(changed)[:, :5], causal(CLIP)[:, :5])
    assert not torch.allclose(both(changed)[:, :5], both(CLIP)[:, :5], atol=1e-4)
    with pytest.raises(SuiteError, match="causal: true"):
        both.allocate_state()


def test_the_hybrid_takes_clips_of_any_length() -> None:
    network = hybrid()
    assert network(CLIP[:, :4]).shape == (2, 4, 17, 3)
    assert network(CLIP.repeat(1, 3, 1, 1)).shape == (2, 27, 17, 3)


def test_a_stream_at_the_smallest_size_fits_two_mebibytes() -> None:
    shipped = yaml.safe_load((ROOT / "configs" / "pose" / "hybrid_causal_xs.yaml").read_text())
    network = HybridLifter(**shipped["model"]["init_args"]["network"]["init_args"])
    assert network.allocate_state().nbytes < 2 * 2**20


def test_gradients_reach_all_of_the_hybrid() -> None:
    network = hybrid().train()
    network(CLIP).square().mean().backward()
    missing = [
        n for n, p in network.named_parameters() if p.grad is None or not (p.grad != 0).any()
    ]
    assert missing == []


def test_the_base_hybrid_costs_less_than_half_of_the_base_agformer() -> None:
    """Parameters, and MACs of 243 frames, as shipped; upstream's own are 11.7 M and 64.5 G."""
    shipped = yaml.safe_load((ROOT / "configs" / "pose" / "hybrid_b.yaml").read_text())
    base = shipped["model"]["init_args"]["network"]["init_args"]
    with torch.device("meta"):
        clip = torch.zeros(1, 243, 17, 3)
        ours, agformer = HybridLifter(**base), MotionAGFormer(depth=16, dim=128, num_frames=243)
        assert sum(p.numel() for p in ours.parameters()) < 11_700_000
        # Ours scales degrees without upstream's two dense products, and so counts less than 64.5 G.
        reference = count_macs(agformer, clip).total
        assert 55e9 < reference < 64.5e9
        macs = count_macs(ours, clip).total
    assert macs <= reference / 2 < 64.5e9 / 2
    # Linear in T: a third of the clip is a third of the work.
    with torch.device("meta"):
        assert 3 * count_macs(ours, clip[:, :81]).total == macs


def layer_inputs(network: nn.Module, x: Tensor) -> list[Tensor]:
    seen: list[Tensor] = []
    for layer in network.layers:
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(x)
    return seen


def test_a_fresh_network_passes_its_input_through_the_layers() -> None:
    first, *others = layer_inputs(MambaGCNFormer(**SMALL).eval(), CLIP)
    for h in others:
        torch.testing.assert_close(h, first, rtol=0, atol=1e-2)
