import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from blocks.concat_mamba import BidirectionalMambaBlock, ConcatMamba
from blocks.errors import SuiteError
from blocks.scan.bidirectional import padding_mask

MIXER_KEYS = {
    "A_log", "D", "in_proj.weight", "conv_x.weight", "conv_x.bias", "x_proj.weight",
    "dt_proj.weight", "dt_proj.bias", "out_proj.weight",
}  # fmt: skip
DOUBLE = torch.float64
PADDINGS = pytest.mark.parametrize("padding", ["exact", "upstream"])


def load(golden: Path, padding: str) -> tuple[BidirectionalMambaBlock, dict[str, Tensor], Tensor]:
    with safe_open(golden / "motion" / "bimamba_block.safetensors", "pt") as file:
        config = json.loads(file.metadata()["config"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    lengths = torch.tensor(config.pop("lengths"))
    block = BidirectionalMambaBlock.from_upstream(config, padding=padding).eval()
    block.load_state_dict({k[3:]: v for k, v in tensors.items() if k.startswith("sd/")})
    return block, tensors, lengths


def naive_mixer(module: ConcatMamba, x: Tensor) -> Tensor:
    """The formula, a step at a time."""
    u, z = module.in_proj(x).chunk(2, dim=-1)
    u = F.silu(module.conv_x(u.mT)[..., : x.shape[1]]).mT
    rank, states = module.dt_proj.in_features, module.A_log.shape[1]
    dt, B, C = module.x_proj(u).split([rank, states, states], dim=-1)
    step = F.softplus(module.dt_proj(dt) + module.dt_proj.bias)
    h, outputs = torch.zeros((), dtype=x.dtype), []
    for t in range(x.shape[1]):
        s = step[:, t, :, None]
        h = h * (-s * module.A_log.exp()).exp() + s * B[:, t, None] * u[:, t, :, None]
        outputs.append((h * C[:, t, None]).sum(-1) + module.D * u[:, t])
    return module.out_proj(torch.cat([torch.stack(outputs, 1), F.silu(z)], dim=-1))


def test_the_mixer_equals_the_fork(golden: Path) -> None:
    block, tensors, _ = load(golden, "exact")
    out = block.mixer_forward(tensors["in/x"])
    torch.testing.assert_close(out, tensors["mid/mixer_forward_of_x"], rtol=0, atol=2e-5)


@PADDINGS
def test_the_block_without_padding_equals_the_fork(golden: Path, padding: str) -> None:
    block, tensors, _ = load(golden, padding)
    torch.testing.assert_close(block(tensors["in/x"]), tensors["out/no_mask"], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("padding", "name"),
    [("upstream", "with_mask_upstream"), ("exact", "length_aware_expected")],
)
def test_the_block_with_padding_equals_its_golden_vector(
    golden: Path, padding: str, name: str
) -> None:
    block, tensors, lengths = load(golden, padding)
    mask = tensors["in/padding_mask_true_is_padding"]
    assert torch.equal(mask, padding_mask(lengths, 16))
    torch.testing.assert_close(
        block(tensors["in/x"], mask), tensors[f"out/{name}"], rtol=0, atol=2e-5
    )


@pytest.mark.parametrize("length", [1, 3, 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_mixer_and_its_gradients_equal_the_formula(length: int, reverse: bool) -> None:
    module = ConcatMamba(8, d_state=3, d_conv=3, expand=1.5).double()
    x = torch.randn(2, length, 8, dtype=DOUBLE, requires_grad=True)
    expected = naive_mixer(module, x.flip(1)).flip(1) if reverse else naive_mixer(module, x)
    out = module(x, reverse=reverse)
    weight = torch.randn_like(out)
    inputs = [x, *module.parameters()]
    ours = [out, *torch.autograd.grad((out * weight).sum(), inputs)]
    theirs = [expected, *torch.autograd.grad((expected * weight).sum(), inputs)]
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).abs().max() <= 1e-12 * b.abs().max()


def test_the_step_counts_its_bias_twice_as_the_fork_does() -> None:
    module, x = ConcatMamba(8).double(), torch.randn(1, 1, 8, dtype=DOUBLE)
    with torch.no_grad():
        # What is left of the output is proportional to the step.
        for tensor in (module.D, module.dt_proj.weight, module.out_proj.weight[:, 16:]):
            tensor.zero_()
        module.dt_proj.bias.zero_()
        before = module(x)
        module.dt_proj.bias.fill_(3.0)
        ratio = module(x) / before
    steps = F.softplus(torch.tensor([0.0, 6.0], dtype=DOUBLE))
    torch.testing.assert_close(ratio, (steps[1] / steps[0]).expand_as(ratio))


def assert_batch_equals_samples(
    module: torch.nn.Module, lengths: Tensor, marker: Tensor, **options: bool
) -> None:
    x = torch.randn(len(lengths), 9, 8, dtype=DOUBLE)
    alone = [module(sample[None, :n], **options)[0] for sample, n in zip(x, lengths, strict=True)]
    expected = torch.autograd.grad(sum(y.square().sum() for y in alone), module.parameters())
    for sample, n in zip(x, lengths, strict=True):
        sample[n:] = float("nan")
    x.requires_grad_()
    out = module(x, marker, **options)
    for ours, y, n in zip(out, alone, lengths, strict=True):
        torch.testing.assert_close(ours[:n], y, rtol=0, atol=1e-12)
        assert (ours[n:] == 0).all()
    out.square().sum().backward()
    for parameter, grad in zip(module.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad, rtol=1e-10, atol=1e-11)
    assert x.grad.isfinite().all() and (x.grad[1, lengths[1] :] == 0).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_mixers_batch_with_nan_padding_equals_each_sample_alone(reverse: bool) -> None:
    lengths = torch.tensor([9, 4, 1])
    assert_batch_equals_samples(ConcatMamba(8).double(), lengths, lengths, reverse=reverse)


def test_a_blocks_batch_with_nan_padding_equals_each_sample_alone() -> None:
    lengths = torch.tensor([9, 4, 1])
    block = BidirectionalMambaBlock(8).double()
    assert_batch_equals_samples(block, lengths, padding_mask(lengths, 9))


def test_upstream_padding_takes_a_hole_whatever_it_holds_and_passes_its_bias_on() -> None:
    block = BidirectionalMambaBlock(8, padding="upstream").double()
    x, mask = torch.randn(1, 9, 8, dtype=DOUBLE), torch.zeros(1, 9, dtype=torch.bool)
    mask[0, 2:4] = True
    expected = block(x, mask)
    x[mask] = float("nan")
    x.requires_grad_()
    out = block(x, mask)
    assert torch.equal(out, expected) and (out[mask] == 0).all()
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in (x, *block.parameters()))
    trailing = padding_mask(torch.tensor([6]), 9)
    padded = block(torch.nan_to_num(x), trailing)[:, :6]
    assert (padded - block(torch.nan_to_num(x)[:, :6])).abs().max() > 1e-6


def test_exact_padding_is_refused_before_valid_steps_and_the_message_tells_the_way_out() -> None:
    block, mask = BidirectionalMambaBlock(8), torch.zeros(1, 5, dtype=torch.bool)
    mask[0, 2] = True
    with pytest.raises(SuiteError, match='(?s)before valid steps.*padding="upstream"'):
        block(torch.zeros(1, 5, 8), mask)


def test_state_dict_has_the_forks_keys() -> None:
    assert set(ConcatMamba(8).state_dict()) == MIXER_KEYS
    block = BidirectionalMambaBlock.from_upstream({"d_model": 8, "drop": 0.1, "drop_path": 0.05})
    mixers = {f"mixer_{way}.{key}" for way in ("forward", "backward") for key in MIXER_KEYS}
    affine = {
        f"{layer}.{name}"
        for layer in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")
        for name in ("weight", "bias")
    }
    assert set(block.state_dict()) == mixers | affine | {"fusion_proj.weight"}
    assert block.padding == "upstream" and block.mlp.fc1.out_features == 32


def test_the_motion_models_block_has_the_published_size() -> None:
    block = BidirectionalMambaBlock(512)
    assert round(sum(p.numel() for p in block.parameters()) / 1e6, 2) == 6.01


def test_parameters_without_weight_decay_exist_under_these_names() -> None:
    module = ConcatMamba(8)
    assert module.no_weight_decay() == {"A_log", "D", "dt_proj.bias"}
    assert module.no_weight_decay() <= set(dict(module.named_parameters()))


def test_dropout_and_drop_path_act_in_training_only() -> None:
    block, x = BidirectionalMambaBlock(8, dropout=0.5, drop_path=0.5), torch.randn(4, 6, 8)
    torch.manual_seed(0)
    first, second = block(x), block(x)
    assert not torch.equal(first, second)
    block.eval()
    assert torch.equal(block(x), block(x))


def test_autocast_stays_close_to_float32() -> None:
    torch.manual_seed(0)
    block, x = BidirectionalMambaBlock(16), torch.randn(2, 30, 16)
    mask = padding_mask(torch.tensor([30, 11]), 30)
    exact = block(x, mask)
    with torch.autocast("cpu", torch.bfloat16):
        out = block(x, mask)
        assert block.mixer_forward(x).dtype == torch.bfloat16
    assert (out - exact).abs().max() < 0.03 * exact.abs().max()
    out.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in block.parameters())


def test_copies_and_pickles_compute_the_same() -> None:
    block, x = BidirectionalMambaBlock(8), torch.randn(1, 5, 8)
    expected = block(x)
    for twin in (copy.deepcopy(block), pickle.loads(pickle.dumps(block))):
        assert torch.equal(twin(x), expected)


@PADDINGS
def test_it_compiles_as_one_graph(padding: str) -> None:
    torch._dynamo.reset()
    block, x = BidirectionalMambaBlock(8, padding=padding), torch.randn(2, 7, 8)
    mask, parameters = padding_mask(torch.tensor([7, 3]), 7), list(block.parameters())
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(x, mask).square().sum(), parameters)
    theirs = torch.autograd.grad(block(x, mask).square().sum(), parameters)
    torch.testing.assert_close(ours, theirs)


def test_what_does_not_fit_is_named() -> None:
    block, x = BidirectionalMambaBlock(8), torch.zeros(2, 5, 8)
    with pytest.raises(SuiteError, match=r"\(batch, time, 8\)"):
        block(torch.zeros(2, 8, 5))
    with pytest.raises(SuiteError, match=r"(?s)booleans of shape \(2, 5\).*shape \(2, 4\)"):
        block(x, torch.zeros(2, 4, dtype=torch.bool))
    with pytest.raises(SuiteError, match="torch.float32"):
        block(x, torch.zeros(2, 5))
    with pytest.raises(SuiteError, match="(?s)exact or upstream.*'flip'"):
        BidirectionalMambaBlock(8, padding="flip")
    with pytest.raises(SuiteError, match="did you mean 'drop_path'"):
        BidirectionalMambaBlock.from_upstream({"d_model": 8, "droppath": 0.1})
