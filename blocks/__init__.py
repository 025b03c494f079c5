"""The floor of the suite: state-space blocks in pure torch.

Names are resolved on first use, so that `blocks.errors` costs no import of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blocks.bimamba import BiMamba, bimamba_inner
    from blocks.caduceus import CaduceusMixer
    from blocks.causal_conv import causal_conv1d, causal_conv1d_update
    from blocks.concat_mamba import BidirectionalMambaBlock, ConcatMamba
    from blocks.drop_path import DropPath, drop_path_rates
    from blocks.hydra import Hydra
    from blocks.mamba import Mamba, MambaCache, mamba_inner
    from blocks.mamba2 import Mamba2, Mamba2Cache
    from blocks.mambavision import MambaVisionMixer
    from blocks.norm import RMSNorm
    from blocks.recorded import Recorded
    from blocks.residual import ResidualBlock
    from blocks.scan import (
        active_backend,
        bidirectional_scan,
        path_scan,
        scan_backends,
        selective_scan,
        selective_scan_fn,
    )
    from blocks.ss2d import SS2D

__all__ = [
    "BiMamba",
    "BidirectionalMambaBlock",
    "CaduceusMixer",
    "ConcatMamba",
    "DropPath",
    "Hydra",
    "Mamba",
    "Mamba2",
    "Mamba2Cache",
    "MambaCache",
    "MambaVisionMixer",
    "RMSNorm",
    "Recorded",
    "ResidualBlock",
    "SS2D",
    "active_backend",
    "bidirectional_scan",
    "bimamba_inner",
    "causal_conv1d",
    "causal_conv1d_update",
    "drop_path_rates",
    "mamba_inner",
    "path_scan",
    "scan_backends",
    "selective_scan",
    "selective_scan_fn",
]

_HOMES = {
    "bimamba": ("BiMamba", "bimamba_inner"),
    "caduceus": ("CaduceusMixer",),
    "causal_conv": ("causal_conv1d", "causal_conv1d_update"),
    "concat_mamba": ("BidirectionalMambaBlock", "ConcatMamba"),
    "drop_path": ("DropPath", "drop_path_rates"),
    "hydra": ("Hydra",),
    "mamba": ("Mamba", "MambaCache", "mamba_inner"),
    "mamba2": ("Mamba2", "Mamba2Cache"),
    "mambavision": ("MambaVisionMixer",),
    "norm": ("RMSNorm",),
    "recorded": ("Recorded",),
    "residual": ("ResidualBlock",),
    "scan": (
        "active_backend",
        "bidirectional_scan",
        "path_scan",
        "scan_backends",
        "selective_scan",
        "selective_scan_fn",
    ),
    "ss2d": ("SS2D",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'blocks' has no attribute {name!r}")
    return getattr(import_module(f"blocks.{_HOME_OF[name]}"), name)
