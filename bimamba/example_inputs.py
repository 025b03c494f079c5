"""Example inputs of the networks that leave the suite as a graph, and which of their axes may vary.

One row per class; a network that has no row can leave as weights only.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bimamba.exchange import Dynamic, Inputs
from blocks.errors import SuiteError


def example_inputs(network: nn.Module) -> tuple[Inputs, Dynamic]:
    """What `forward` takes, by name, and names of the axes that may vary.

    Args:
        network: One of the suite's.

    Raises:
        SuiteError: No row for it.
    """
    for kind in type(network).__mro__:
        if kind.__name__ in _MAKERS:
            return _MAKERS[kind.__name__](network)
    raise SuiteError(
        expected=f"one of {', '.join(sorted(_MAKERS))}",
        found=type(network).__name__,
        where="bimamba export --to FILE.onnx",
        cure="export its weights as .safetensors, or call bimamba.exchange with inputs of your own",
    )


def _images(network: Any) -> tuple[Inputs, Dynamic]:
    """(B, 3, H, W). The size is the network's: its positions are a table."""
    size = network.img_size if isinstance(network.img_size, tuple) else (network.img_size,) * 2
    channels = network.init_call["init_args"].get("in_chans", 3)
    return {"images": torch.randn(2, channels, *size)}, {"images": {0: "batch"}}


def _clips(network: Any) -> tuple[Inputs, Dynamic]:
    """(B, T, J, C), T as in training unless the network takes any."""
    arguments = network.init_call["init_args"]
    frames = arguments.get("n_frames", 27)
    dynamic = {0: "batch"} | ({} if "n_frames" in arguments else {1: "frames"})
    x = torch.randn(2, frames, 17, arguments.get("in_features", 3))
    return {"x": x}, {"x": dynamic}


def _motion(network: Any) -> tuple[Inputs, Dynamic]:
    """Noisy motion, step, text and padding; places and contacts where there is a scene."""
    inputs = {
        "x": torch.randn(2, 24, network.in_features),
        "time": torch.tensor([3, 500]),
        "text": torch.randn(2, network.text_dim),
        "padding_mask": torch.arange(24) >= torch.tensor([[24], [17]]),
    }
    dynamic: Dynamic = {name: {0: "batch"} for name in inputs}
    dynamic["x"][1] = dynamic["padding_mask"][1] = "frames"
    if network.contact == "points":
        features = network.init_call["init_args"].get("contact_features", 6)
        inputs |= {"points": torch.rand(2, 1024, 3), "contact": torch.rand(2, 1024, features)}
        dynamic |= {"points": {0: "batch"}, "contact": {0: "batch"}}
    return inputs, dynamic


_MAKERS: dict[str, Callable[[Any], tuple[Inputs, Dynamic]]] = {
    "VisionMamba": _images,
    "HybridLifter": _clips,
    "CMDM": _motion,
}
