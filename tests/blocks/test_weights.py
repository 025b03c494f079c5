"""Foreign weights: found under every wrapper, matched whole or refused without a trace."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.weights import MatchReport, load_weights, read_state_dict
from lightning_modules.vision import VisionMamba


class Net(nn.Module):
    def __init__(self, width: int = 3, classes: int = 2) -> None:
        super().__init__()
        self.body = nn.Linear(4, width)
        self.head = nn.Linear(width, classes)


class Wrapped(nn.Module):
    """A network whose every key starts like a wrapper's."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Net()


def net(seed: int = 0, **sizes: int) -> Net:
    torch.manual_seed(seed)
    return Net(**sizes)


def copied(module: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def written(tmp_path: Path, content: object) -> Path:
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


# ---- where the weights lie ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["model", "state_dict", "model_state_dict", "net", "module", "current_model_state"]
)
def test_finds_the_weights_under_every_known_name(tmp_path: Path, place: str) -> None:
    state = copied(net())
    path = written(tmp_path, {"epoch": 3, "args": argparse.Namespace(lr=1.0), place: state})
    assert equal(read_state_dict(path), state)


def test_a_bare_state_dict_is_enough(tmp_path: Path) -> None:
    state = copied(net())
    assert equal(read_state_dict(written(tmp_path, state)), state)


def test_reads_safetensors(tmp_path: Path) -> None:
    state = copied(net())
    save_file(state, tmp_path / "a.safetensors")
    assert equal(read_state_dict(tmp_path / "a.safetensors"), state)


@pytest.mark.parametrize("place", ["model_ema", "state_dict_ema", "ema"])
def test_the_average_is_read_on_request_only(tmp_path: Path, place: str) -> None:
    raw, average = copied(net(0)), copied(net(1))
    path = written(tmp_path, {"model": raw, place: average})
    assert equal(read_state_dict(path), raw)
    assert equal(read_state_dict(path, "model_ema"), average)


def test_lightning_swaps_the_two_when_it_averages(tmp_path: Path) -> None:
    raw, average = copied(net(0)), copied(net(1))
    content = {
        "state_dict": {f"network.{key}": value for key, value in average.items()},
        "current_model_state": {f"network.{key}": value for key, value in raw.items()},
    }
    path = written(tmp_path, content)
    assert equal(read_state_dict(path, "model"), raw)
    assert equal(read_state_dict(path, "model_ema"), average)


def test_an_absent_average_is_an_error_not_the_raw_weights(tmp_path: Path) -> None:
    for content in ({"model": copied(net())}, {"state_dict": copied(net())}, copied(net())):
        with pytest.raises(SuiteError, match="model_ema"):
            read_state_dict(written(tmp_path, content), "model_ema")


@pytest.mark.parametrize(
    "content", [{"epoch": 1, "note": "none"}, {"model": {}}, [torch.ones(1)], torch.ones(2), 7]
)
def test_a_file_without_weights_says_what_it_holds(tmp_path: Path, content: object) -> None:
    path = written(tmp_path, content)
    with pytest.raises(SuiteError) as caught:
        read_state_dict(path)
    assert str(path) in str(caught.value)
    assert ("epoch" if isinstance(content, dict) and "epoch" in content else "found") in str(
        caught.value
    )


# ---- prefixes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "network.",
        "model.",
        "backbone.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.model.",
        "network._orig_mod.",
        "model.module.",
    ],
)
def test_wrapper_prefixes_fall_off_in_any_order(tmp_path: Path, prefix: str) -> None:
    state = copied(net())
    path = written(tmp_path, {"model": {prefix + key: value for key, value in state.items()}})
    assert equal(read_state_dict(path), state)


def test_a_lightning_modules_metrics_and_losses_stay_behind(tmp_path: Path) -> None:
    state = copied(net())
    content = {f"network.{key}": value for key, value in state.items()}
    path = written(tmp_path, {"state_dict": {**content, "criterion.weight": torch.ones(2)}})
    assert equal(read_state_dict(path), state)


def test_a_prefix_of_some_keys_is_part_of_their_name(tmp_path: Path) -> None:
    state = {"backbone.w": torch.ones(1), "head.w": torch.ones(1), "modulex": torch.ones(1)}
    assert equal(read_state_dict(written(tmp_path, state)), state)


def test_what_is_no_tensor_is_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, {"model": {"w": torch.ones(1), "version": 3}})
    assert list(read_state_dict(path)) == ["w"]


def test_a_network_whose_own_keys_look_wrapped_loads_its_own_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = Wrapped(), Wrapped()
    state = read_state_dict(written(tmp_path, source.state_dict()))
    assert load_weights(target, state, source="x").fraction == 1
    assert equal(target.state_dict(), source.state_dict())


# ---- matching -----------------------------------------------------------------------------------


def test_a_whole_match_copies_every_entry_and_says_so() -> None:
    source, target = net(0), net(1)
    report = load_weights(target, copied(source), source="file.pth")
    assert equal(target.state_dict(), source.state_dict())
    assert (report.fraction, report.missing, report.unexpected, report.mismatched) == (
        1,
        [],
        [],
        [],
    )
    assert report.loaded == sorted(source.state_dict())
    assert str(report) == "file.pth: 4 entries loaded (100.0% of weights)"


def test_loading_copies_and_does_not_share_memory() -> None:
    state, target = copied(net(0)), net(1)
    load_weights(target, state, source="x")
    state["body.weight"].zero_()
    assert target.body.weight.abs().sum() > 0


def test_a_partial_match_is_refused_and_the_network_unchanged() -> None:
    target = net(1)
    before, state = copied(target), copied(net(0))
    del state["body.weight"]
    with pytest.raises(SuiteError) as caught:
        load_weights(target, state, source="file.pth")
    assert equal(target.state_dict(), before)
    for part in ("body.weight", "100%", "missing", "file.pth", "Net"):
        assert part in str(caught.value)


def test_the_fraction_counts_weights_not_entries() -> None:
    state = copied(net(0))
    del state["body.weight"]
    report = load_weights(net(1), state, source="x", minimum_match=0.4)
    assert report.fraction == pytest.approx(11 / 23)
    with pytest.raises(SuiteError):
        load_weights(net(1), state, source="x", minimum_match=0.5)


def test_mismatched_shapes_are_named_on_both_sides() -> None:
    with pytest.raises(SuiteError) as caught:
        load_weights(net(1, width=3), copied(net(0, width=5)), source="x")
    assert "body.weight ((5, 4) in the file, (3, 4) in the model)" in str(caught.value)


def test_a_head_of_other_classes_may_stay_fresh() -> None:
    source, target = net(0, classes=5), net(1, classes=2)
    before = copied(target)
    with pytest.raises(SuiteError, match="head"):
        load_weights(target, copied(source), source="x")
    report = load_weights(target, copied(source), source="x", allow_fresh=["head.*"])
    assert torch.equal(target.body.weight, source.body.weight)
    assert torch.equal(target.head.weight, before["head.weight"])
    assert report.fraction == 1
    assert len(report.mismatched) == 2


def test_a_fitting_head_is_loaded_even_where_it_may_stay_fresh() -> None:
    source, target = net(0), net(1)
    load_weights(target, copied(source), source="x", allow_fresh=["head.*"])
    assert torch.equal(target.head.weight, source.head.weight)


def test_extra_entries_are_refused_unless_a_partial_match_is_asked_for() -> None:
    state = {**copied(net(0)), **{f"extra.{i}": torch.ones(1) for i in range(6)}}
    target = net(1)
    with pytest.raises(SuiteError, match="unexpected: extra.0"):
        load_weights(target, state, source="x")
    assert equal(target.state_dict(), net(1).state_dict())
    report = load_weights(target, state, source="x", minimum_match=0.7)
    assert report.unexpected == [f"extra.{i}" for i in range(6)]
    assert "unexpected: extra.0, extra.1, extra.2, extra.3 … (6)" in str(report)


def test_half_precision_weights_become_the_networks_precision() -> None:
    source, target = net(0), net(1)
    load_weights(target, {k: v.half() for k, v in copied(source).items()}, source="x")
    assert target.body.weight.dtype == torch.float32
    assert torch.allclose(target.body.weight, source.body.weight, atol=1e-3)


def test_the_report_lists_every_kind_of_difference() -> None:
    report = MatchReport("f", ["a"], ["b"], ["c"], ["d (x)"], 0.5)
    assert str(report) == (
        "f: 1 entries loaded (50.0% of weights); missing: b (1); mismatched: d (x) (1); "
        "unexpected: c (1)"
    )


# ---- Vim ----------------------------------------------------------------------------------------


def vim(**options: Any) -> VisionMamba:
    return VisionMamba(**{"img_size": 32, "patch_size": 8, "dim": 16, "depth": 1, **options})


@pytest.fixture
def vim_file(tmp_path: Path) -> Path:
    """A training checkpoint of hustvl/Vim's structure, in small."""
    torch.manual_seed(0)
    state = vim(num_classes=7).state_dict()
    return written(
        tmp_path,
        {
            "model": state,
            "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
            "lr_scheduler": {"base_values": [1e-3]},
            "epoch": 299,
            "model_ema": {key: value + 1 for key, value in state.items()},
            "scaler": "none",
            "args": argparse.Namespace(model="vim_tiny", drop_path=0.0),
        },
    )


@pytest.mark.parametrize(("weights", "shift"), [("model", 0.0), ("model_ema", 1.0)])
def test_a_vim_checkpoint_fits_another_image_size(
    vim_file: Path, weights: str, shift: float
) -> None:
    torch.manual_seed(0)
    source, target = vim(num_classes=7), vim(num_classes=7, img_size=48)
    state = target.adapt_state_dict(read_state_dict(vim_file, weights))
    report = load_weights(target, state, source=str(vim_file))
    assert report.fraction == 1
    assert torch.allclose(target.cls_token, source.cls_token + shift)
    # The class token's position is row M // 2 before and after, and is not interpolated.
    assert torch.allclose(target.pos_embed[:, 18], source.pos_embed[:, 8] + shift)


def test_a_vim_checkpoint_of_another_size_is_refused_unless_adapted(vim_file: Path) -> None:
    with pytest.raises(SuiteError, match=re.escape("pos_embed ((1, 17, 16)")):
        load_weights(vim(num_classes=7, img_size=48), read_state_dict(vim_file), source="x")


def test_a_vim_checkpoint_of_another_width_is_refused(vim_file: Path) -> None:
    with pytest.raises(SuiteError, match="build the network the weights were trained with"):
        load_weights(vim(num_classes=7, dim=32), read_state_dict(vim_file), source="x")
