"""The floor of the suite: state-space blocks in pure torch.

Names are resolved on first use, so that `blocks.errors` costs no import of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blocks.bimamba import BiMamba, bimamba_inner
    from blocks.causal_conv import causal_conv1d, causal_conv1d_update
    from blocks.drop_path import DropPath, drop_path_rates
    from blocks.mamba import Mamba, MambaCache, mamba_inner
    from blocks.norm import RMSNorm
    from blocks.recorded import Recorded
    from blocks.residual import ResidualBlock
    from blocks.scan import (
        active_backend,
        bidirectional_scan,
        scan_backends,
        selective_scan,
        selective_scan_fn,
    )

__all__ = [
    "BiMamba",
    "DropPath",
    "Mamba",
    "MambaCache",
    "RMSNorm",
    "Recorded",
    "ResidualBlock",
    "active_backend",
    "bidirectional_scan",
    "bimamba_inner",
    "causal_conv1d",
    "causal_conv1d_update",
    "drop_path_rates",
    "mamba_inner",
    "scan_backends",
    "selective_scan",
    "selective_scan_fn",
]

_HOMES = {
    "bimamba": ("BiMamba", "bimamba_inner"),
    "causal_conv": ("causal_conv1d", "causal_conv1d_update"),
    "drop_path": ("DropPath", "drop_path_rates"),
    "mamba": ("Mamba", "MambaCache", "mamba_inner"),
    "norm": ("RMSNorm",),
    "recorded": ("Recorded",),
    "residual": ("ResidualBlock",),
    "scan": (
        "active_backend",
        "bidirectional_scan",
        "scan_backends",
        "selective_scan",
        "selective_scan_fn",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'blocks' has no attribute {name!r}")
    return getattr(import_module(f"blocks.{_HOME_OF[name]}"), name)
