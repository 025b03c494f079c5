"""Whole networks: Vim-Tiny beside DeiT-Tiny at 224 pixels, and the network of `make demo`.

A training step is forward, cross-entropy, backward and AdamW, on random images that lie in memory:
no data pipeline. DeiT is timm's `deit_tiny_patch16_224`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

from benchmarks.settings import DTYPES, Settings, Tell, chosen
from benchmarks.timing import Row, compare, interleave, reason
from blocks.errors import SuiteError
from lightning_modules.vision import VisionMamba

MODEL_PEERS = ("deit_tiny_naive", "deit_tiny_fused")
BATCH, CUDA_BATCH, DEMO_BATCH = 8, 128, 32
_CONFIGS = Path(__file__).parent.parent / "configs"
_QUICK = {"img_size": 32, "depth": 2}


def measure_model(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measures training and inference of networks.

    Args:
        settings: How.
        tell: Hears what is being done.

    Returns:
        `vim_tiny` and `demo`, each with its `batch` and rows by name for `training` and
        `inference`; rows have `images_per_second` and `steps_per_second`.
    """
    names = chosen(settings, MODEL_PEERS)
    torch.manual_seed(0)
    changed = _QUICK if settings.quick else {}
    networks: dict[str, nn.Module] = {"vim_tiny": network("vision/vim_tiny.yaml", **changed)}
    missing: dict[str, Row] = {}
    for name in names:
        try:
            networks[name] = deit_tiny(fused=name.endswith("fused"), **changed)
        except Exception as error:  # Another timm may have other names.
            missing[name] = {"skipped": reason(error)}
    demo = {"demo": network("demo/vision.yaml", **({"depth": 1} if settings.quick else {}))}
    on_cuda = torch.device(settings.device).type == "cuda"
    batch = 2 if settings.quick else CUDA_BATCH if on_cuda else BATCH
    pixels = 32 if settings.quick else 224
    return {
        "vim_tiny": _measure(networks, batch, pixels, settings, tell) | {"missing": missing},
        "demo": _measure(demo, DEMO_BATCH, 32, settings, tell),
    }


def network(config: str, **changed: int) -> VisionMamba:
    """The network of a configuration.

    Args:
        config: File below `configs`.
        changed: Arguments that differ.

    Raises:
        SuiteError: There are no configurations, as in an installed package.
    """
    path = _CONFIGS / config
    if not path.is_file():
        raise SuiteError(
            expected="a checkout of the suite, with its configurations",
            found="no such file",
            where=str(path),
            cure="run the command in a checkout that is installed with pip install -e .",
        )
    arguments = yaml.safe_load(path.read_text())["model"]["init_args"]["network"]["init_args"]
    # The data set would say how many; 1000 on ImageNet-1K.
    arguments["num_classes"] = arguments["num_classes"] or 1000
    return VisionMamba(**{**arguments, **changed})


def deit_tiny(fused: bool, **changed: int) -> nn.Module:
    """DeiT-Tiny of timm, as wide as Vim-Tiny.

    Args:
        fused: Attention through scaled_dot_product_attention, else by products and a softmax.
        changed: Arguments that differ.
    """
    import timm

    model: nn.Module = timm.create_model("deit_tiny_patch16_224", **changed)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", fused)  # noqa: B010  # nn.Module has no such name.
    return model


def _measure(
    networks: Mapping[str, nn.Module], batch: int, pixels: int, settings: Settings, tell: Tell
) -> dict[str, Any]:
    images = torch.randn(batch, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    images = images.to(settings.device)
    found: dict[str, Any] = {"batch": batch, "pixels": pixels}
    for mode, maker in (("training", _training_step), ("inference", inference)):
        tell(f"{mode} of {', '.join(networks)}, {batch} images of {pixels} pixels")
        steps = {name: maker(model.to(settings.device), images, settings) for name, model in
                 networks.items()}  # fmt: skip
        rows = compare(interleave(steps, settings), next(iter(networks)))
        for row in rows.values():
            if "median_seconds" in row:
                row["steps_per_second"] = 1 / row["median_seconds"]
                row["images_per_second"] = batch / row["median_seconds"]
        found[mode] = rows
    return found


def _training_step(model: nn.Module, images: Tensor, settings: Settings) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
    labels = torch.arange(len(images), device=images.device) % 10

    def step() -> None:
        model.train()
        loss = F.cross_entropy(_autocast(model, images, settings).float(), labels)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    return step


def inference(model: nn.Module, images: Tensor, settings: Settings) -> Callable[[], object]:
    """A forward pass in evaluation mode, without gradients.

    Args:
        model: Maps images to logits.
        images: (B, 3, H, W), on its device.
        settings: Its type is that of the autocast region.
    """

    @torch.no_grad()
    def step() -> Tensor:
        model.eval()
        return _autocast(model, images, settings)

    return step


def _autocast(model: nn.Module, images: Tensor, settings: Settings) -> Tensor:
    dtype = DTYPES[settings.dtype]
    with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
        logits: Tensor = model(images)
    return logits
