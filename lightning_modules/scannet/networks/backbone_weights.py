"""Weights of published Res16UNet34C backbones: where they lie in a checkpoint, how they are stored.

    xuxw98/ESAM, filaPro/oneformer3d   backbone.*          beside pool.* and decoder.*
    JonasSchult/Mask3D                 model.backbone.*    beside its own decoder; final.* is unused
    the reference BiFusion             bi_encoder.backbone3d.*

MinkowskiEngine calls a kernel `kernel`; spconv calls it `weight` and orders its axes otherwise.
"""

from collections.abc import Mapping

from torch import Tensor

from blocks.errors import SuiteError
from blocks.sparse.layout import from_spconv

# Longest first: the shorter ones end some of the longer ones.
_PREFIXES = (
    "bi_encoder.backbone3d.",
    "network.backbone.",
    "model.backbone.",
    "backbone3d.",
    "backbone.",
)
# A classifier of Mask3D's pretraining; the segmenters read the features below it.
_DROPPED = ("final.",)


def backbone_state(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries of a backbone, under the network's own keys.

    Args:
        state: Everything a checkpoint holds.
        own: Entries of the network, which give the wanted shapes.

    Returns:
        Entries without the prefix, unused ones and foreign layouts.
    """
    for prefix in _PREFIXES:
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inside:
            state = inside
            break
    kept = {key: value for key, value in state.items() if not key.startswith(_DROPPED)}
    return dict(_converted(key, value, own) for key, value in kept.items())


def _converted(key: str, value: Tensor, own: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    """One entry in MinkowskiEngine's layout."""
    kernel = key.removesuffix("weight") + "kernel"
    if kernel in own and key not in own and value.dim() == 5:
        try:
            return kernel, from_spconv(value, own[kernel].shape)
        except SuiteError:
            return kernel, value  # Another width: the match report names both shapes.
    return key, value
