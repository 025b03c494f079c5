import pytest
import torch
from torch import Tensor

from blocks import bidirectional_scan, selective_scan
from blocks.errors import SuiteError

TIMED = ("u", "delta", "B", "C", "z", "u_b", "delta_b", "B_b", "C_b")


def make(length: int = 19) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=rng).requires_grad_()

    inputs = {"z": normal(2, 4, length)}
    for suffix in ("", "_b"):
        inputs |= {
            f"u{suffix}": normal(2, 4, length),
            f"delta{suffix}": normal(2, 4, length),
            f"A{suffix}": (-normal(4, 3).detach().exp()).requires_grad_(),
            f"B{suffix}": normal(2, 3, length),
            f"C{suffix}": normal(2, 3, length),
            f"D{suffix}": normal(4),
            f"delta_bias{suffix}": normal(4),
        }
    return inputs


def by_flipping(inputs: dict[str, Tensor]) -> Tensor:
    """Vim's definition: each direction gated by itself, the backward one on flipped tensors."""
    forward = {k: v for k, v in inputs.items() if not k.endswith("_b")}
    backward = {k: inputs.get(f"{k}_b", v) for k, v in forward.items()}
    backward = {k: v.flip(-1) if k in TIMED else v for k, v in backward.items()}
    y_b = selective_scan(**backward, delta_softplus=True).flip(-1)
    return selective_scan(**forward, delta_softplus=True) + y_b


@pytest.mark.parametrize("shared", [True, False], ids=["v1", "v2"])
def test_it_equals_two_gated_scans_on_flipped_tensors(shared: bool) -> None:
    inputs = make()
    if shared:
        inputs = {k: v for k, v in inputs.items() if not k.endswith("_b") or k == "A_b"}
    ours = bidirectional_scan(**inputs, delta_softplus=True)
    expected = by_flipping(inputs)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    seed = torch.linspace(-1, 1, ours.numel(), dtype=torch.float64).view(ours.shape)
    grads = torch.autograd.grad(ours, list(inputs.values()), seed)
    expected_grads = torch.autograd.grad(expected, list(inputs.values()), seed)
    for a, b in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_nan_padding_changes_neither_results_nor_gradients() -> None:
    inputs, lengths = make(), torch.tensor([19, 7])
    short = {k: v[1:, ..., :7].detach() if k in TIMED else v.detach() for k, v in inputs.items()}
    for name in TIMED:
        inputs[name] = inputs[name].detach().clone()
        inputs[name][1, ..., 7:] = float("nan")
        inputs[name].requires_grad_()
    out = bidirectional_scan(**inputs, delta_softplus=True, lengths=lengths)
    expected = bidirectional_scan(**short, delta_softplus=True)
    torch.testing.assert_close(out[1:, :, :7], expected, rtol=0, atol=1e-12)
    assert (out[1, :, 7:] == 0).all()
    out.square().sum().backward()
    assert all(value.grad.isfinite().all() for value in inputs.values())
    assert all((inputs[name].grad[1, ..., 7:] == 0).all() for name in TIMED)


def test_a_gate_of_another_shape_is_refused() -> None:
    inputs = make() | {"z": torch.zeros(2, 4, 5)}
    with pytest.raises(SuiteError, match=r"(?s)\(2, 4, 19\).*z="):
        bidirectional_scan(**inputs)
