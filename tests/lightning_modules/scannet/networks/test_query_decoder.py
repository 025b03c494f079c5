"""Pooling and decoder against vectors of ESAM, and what must hold for any weights."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lightning_modules.scannet.networks.query_decoder import DecoderInput, QueryDecoder
from lightning_modules.scannet.networks.query_order import QueryScan, curve_orders
from lightning_modules.scannet.networks.superpoint_pooling import GeoAwarePooling, pooled
from tests.conftest import GOLDEN

FOLDER = GOLDEN / "scannet"
CONFIGS = json.loads((FOLDER / "decoder_postproc.json").read_text())["decoder"]


def part(vectors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in vectors.items() if k.startswith(prefix)}


def pooled_inputs(
    name: str,
) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[DecoderInput], torch.Tensor]:
    vectors, config = load_file(FOLDER / f"decoder_{name}.safetensors"), CONFIGS[name]
    pool = GeoAwarePooling(config["in_channels"])
    pool.load_state_dict(part(vectors, "pool."))
    samples, count = range(config["B"]), config["S"]
    xyz, features, superpoint = (
        torch.cat([vectors[f"in/{b}/{key}"] + add * b for b in samples])
        for key, add in (("xyz", 0), ("feats", 0), ("superpoints", count))
    )
    with torch.no_grad():
        found, weight = pool(features, xyz, superpoint, len(samples) * count)
    inputs = []
    for b in samples:
        here = slice(b * config["P"], (b + 1) * config["P"])
        rows = found[b * count : (b + 1) * count]
        inputs.append(
            DecoderInput(
                rows, features[here], xyz[here], superpoint[here] - b * count, weight[here]
            )
        )
    return vectors, config, inputs, weight


@pytest.mark.parametrize("name", CONFIGS)
def test_pooling_equals_esam(name: str) -> None:
    vectors, _, inputs, weight = pooled_inputs(name)
    torch.testing.assert_close(weight, vectors["out/pool_point_weight"], atol=2e-5, rtol=1e-4)
    for b, sample in enumerate(inputs):
        expected = vectors[f"out/{b}/sp_feats"]
        torch.testing.assert_close(sample.superpoints, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_output_equals_esam(name: str) -> None:
    vectors, config, inputs, _ = pooled_inputs(name)
    decoder = QueryDecoder.from_upstream(config)
    decoder.load_state_dict(part(vectors, "decoder."))
    for b, sample in enumerate(inputs):
        with torch.no_grad():
            outputs = decoder(sample, vectors[f"gt/{b}/query_ids"])
        assert [output.over_points for output in outputs] == [False, False, True, True]
        for depth, output in enumerate(outputs):
            last = depth == config["num_layers"]
            prefix = f"out/{b}/" if last else f"out/{b}/aux{depth}/"
            for found, key in ((output.classes, "cls_preds"), (output.masks, "masks")):
                torch.testing.assert_close(found, vectors[prefix + key], atol=2e-5, rtol=1e-4)
            assert (output.semantic is not None) == last
        expected = vectors[f"out/{b}/sem_preds"]
        torch.testing.assert_close(outputs[-1].semantic, expected, atol=2e-5, rtol=1e-4)


def test_without_point_masks_all_outputs_are_over_superpoints() -> None:
    inputs = pooled_inputs("agnostic")[2]
    decoder = QueryDecoder(16, 198, 200, 16, depth=6, num_heads=2, point_masks_from=None)
    outputs = decoder(inputs[0])
    assert len(outputs) == 7 and outputs[-1].classes.shape == (24, 199)
    assert all(o.masks.shape == (24, 24) and not o.over_points for o in outputs)
    assert not any("x_pts_mask" in key for key in decoder.state_dict())


def test_published_size_has_the_published_keys() -> None:
    with torch.device("meta"):
        keys = QueryDecoder(96, 1).state_dict().keys()
    assert {"cross_attn_layers.2.attn.in_proj_weight", "ffn_layers.0.net.3.weight"} <= keys


@pytest.mark.parametrize("masks", [None, 1])
def test_a_mask_that_blocks_everything_stops_nobody(masks: int | None) -> None:
    inputs = pooled_inputs("agnostic")[2]
    decoder = QueryDecoder(16, 1, 10, 16, depth=2, num_heads=2, point_masks_from=masks)
    with torch.no_grad():
        for name, parameter in decoder.named_parameters():
            if name.startswith(("x_mask.2", "x_pts_mask.2")):
                parameter.zero_()
        (decoder.out_norm.bias.fill_(1), decoder.x_mask[2].bias.fill_(-9))
        if masks is not None:
            decoder.x_pts_mask[2].bias.fill_(-9)
    outputs = decoder(inputs[0])
    assert all((output.masks < 0).all() and output.masks.isfinite().all() for output in outputs)
    assert all(output.classes.isfinite().all() for output in outputs)


def test_an_empty_superpoint_pools_to_zero_and_extremes_are_exact() -> None:
    x = torch.tensor([[1.0, -2.0], [3.0, -4.0], [5.0, 6.0]])
    group = torch.tensor([0, 0, 2])
    assert pooled(x, group, 3, "mean").tolist() == [[2, -3], [0, 0], [5, 6]]
    assert pooled(x, group, 3, "amin").tolist() == [[1, -4], [0, 0], [5, 6]]


def test_a_scan_mixes_queries_whatever_their_order() -> None:
    torch.manual_seed(0)
    layer, places = QueryScan(16, 0.0, d_state=8).eval(), torch.rand(20, 3) * 3
    query, order = torch.randn(20, 16), torch.randperm(20)
    assert len(curve_orders(places)) == 2
    with torch.no_grad():
        found = layer(query, places)
        torch.testing.assert_close(layer(query[order], places[order]), found[order])
        changed = query.clone()
        changed[3] = torch.randn(16)
        touched = (layer(changed, places) - found).abs().amax(1) > 1e-7
    assert touched.sum() > 10


def test_a_decoder_with_scans_trains() -> None:
    inputs = pooled_inputs("agnostic")[2]
    decoder = QueryDecoder(16, 1, 10, 16, depth=1, num_heads=2, self_mixer="scan")
    decoder(inputs[0], torch.arange(5))[-1].masks.square().mean().backward()
    assert decoder.self_attn_layers[0].mamba.in_proj.weight.grad.abs().sum() > 0
