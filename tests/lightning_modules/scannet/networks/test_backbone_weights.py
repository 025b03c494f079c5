"""Published backbones, in every wrapping they come in, loaded whole or refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.sparse.layout import to_spconv
from lightning_modules.scannet import Res16UNet34C
from lightning_modules.scannet.partial_load import PartialLoad
from tests.lightning_modules.scannet.networks.test_res16unet import NARROW

State = dict[str, Tensor]


class Segmenter(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.backbone = Res16UNet34C(**NARROW)
        self.pool = nn.Linear(3, 3)


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def esam(state: State) -> object:
    rest = {"pool.weight": torch.zeros(3, 3), "decoder.out_cls.0.weight": torch.zeros(5, 5)}
    return {"meta": {"epoch": 128}, "state_dict": under("backbone.", state) | rest}


def mask3d_lightning(state: State) -> object:
    final = {
        "model.backbone.final.kernel": torch.zeros(96, 20),
        "model.backbone.final.bias": torch.zeros(1, 20),
    }
    rest = {
        "model.query_projection.layers.0.weight": torch.zeros(4, 4),
        "criterion.empty_weight": torch.ones(9),
    }
    return {"state_dict": under("model.backbone.", state) | final | rest, "epoch": 600}


def mask3d_for_esam(state: State) -> object:
    return {"state_dict": under("backbone.", state)}


def bifusion(state: State) -> object:
    rest = {"bi_encoder.head3d.0.weight": torch.zeros(4, 4)}
    return {"state_dict": under("bi_encoder.backbone3d.", state) | rest}


def spconv_2(state: State) -> object:
    return esam(in_spconv(state, to_spconv))


def spconv_1(state: State) -> object:
    return esam(in_spconv(state, lambda kernel: to_spconv(kernel).permute(1, 2, 3, 4, 0)))


def in_spconv(state: State, layout: Callable[[Tensor], Tensor]) -> State:
    return {
        key.replace(".kernel", ".weight"): layout(value) if key.endswith("kernel") else value
        for key, value in state.items()
    }


@pytest.mark.parametrize(
    "wrapped", [esam, mask3d_lightning, mask3d_for_esam, bifusion, spconv_2, spconv_1]
)
def test_every_published_wrapping_is_loaded_whole(
    wrapped: Callable[[State], object], tmp_path: Path
) -> None:
    theirs, ours = Segmenter(1), Segmenter(2)
    before = ours.pool.weight.clone()
    path = tmp_path / "weights.pth"
    torch.save(wrapped(theirs.backbone.state_dict()), path)
    report = PartialLoad(str(path), "backbone").load(ours)
    assert report.fraction == 1 and not report.missing and not report.unexpected
    assert len(report.loaded) == len(ours.backbone.state_dict())
    for key, value in theirs.backbone.state_dict().items():
        assert torch.equal(ours.backbone.state_dict()[key], value), key
    assert torch.equal(ours.pool.weight, before)


def test_a_backbone_of_another_width_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    ours = Segmenter(2)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    wide = Res16UNet34C(**NARROW | {"planes": (8, 8, 12, 16, 12, 8, 8, 10)})
    for number, content in enumerate((esam(wide.state_dict()), spconv_2(wide.state_dict()))):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        with pytest.raises(SuiteError, match="at least 90%") as caught:
            PartialLoad(str(path), "backbone").load(ours)
        assert "block4.0.conv1.kernel (" in str(caught.value)
        assert all(torch.equal(before[key], value) for key, value in ours.state_dict().items())


def test_a_file_without_a_backbone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {"decoder.out_cls.0.weight": torch.zeros(5, 5)}}, path)
    with pytest.raises(SuiteError, match="0 entries loaded"):
        PartialLoad(str(path), "backbone").load(Segmenter(0))
