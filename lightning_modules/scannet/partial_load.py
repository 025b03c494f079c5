"""Weights of others for one part of a network: Mask3D's backbone, CLIP's image tower, ESAM's pool.

trainer:
  callbacks:
    - class_path: PartialLoad
      init_args: {path: mask3d_scannet200.pth, submodule: backbone}
"""

import re
from collections.abc import Mapping

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.weights import MatchReport, load_weights, read_state_dict

# ScanNet200's chair and floor among the rows of a semantic head.
_SWAPPED = (1, 2)


class PartialLoad(Callback):
    """Loads a part of the network once, before a fit; a resumed fit has its weights already.

    Wrappers such as `module.` or `model.` before all names are taken off first. Of the rest, those
    below `submodule` count; where none is below it, the names are taken as the part's own.

    Args:
        path: `.pth`, `.pt`, `.ckpt`, `.bin` or `.safetensors`.
        submodule: Part of the network, such as `backbone`, `decoder` or `fusion.trunk`.
        prefix_replace: Regular expression and its replacement, applied to the names in the file.
        min_match: Least share of the weights of part and file that must be loaded, in 0..1.
        swap_chair_and_floor: The semantic head comes from ESAM or OneFormer3D, who exchange the two
            classes so that stuff comes first.
    """

    def __init__(
        self,
        path: str,
        submodule: str,
        prefix_replace: tuple[str, str] | None = None,
        min_match: float = 0.9,
        swap_chair_and_floor: bool = False,
    ) -> None:
        super().__init__()
        self.path, self.submodule, self.prefix_replace = path, submodule, prefix_replace
        self.min_match, self.swap = min_match, swap_chair_and_floor

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Loads before a fit that is not resumed."""
        if stage == "fit" and trainer.ckpt_path is None:
            report = self.load(pl_module.get_submodule("network"))
            rank_zero_info(f"{self.submodule}: {report}")

    def load(self, network: nn.Module) -> MatchReport:
        """Loads the part.

        Args:
            network: The whole network.

        Returns:
            What was loaded, missing, unexpected and of another shape.

        Raises:
            SuiteError: There is no such part, or too little of it matches; nothing is changed then.
        """
        part = self._part(network)
        state = self._inside(read_state_dict(self.path))
        if callable(adapt := getattr(part, "adapt_state_dict", None)):
            state = adapt(state)
        if self.swap:
            state = {key: _swapped(key, value) for key, value in state.items()}
        return load_weights(part, state, source=self.path, minimum_match=self.min_match)

    def _part(self, network: nn.Module) -> nn.Module:
        parts: dict[str, nn.Module] = dict(network.named_modules())
        if self.submodule not in parts:
            raise SuiteError(
                expected=f"a part of {type(network).__name__}: "
                + ", ".join(name for name, _ in network.named_children()),
                found=self.submodule,
                where="trainer.callbacks: PartialLoad, submodule",
                cure="correct it",
            )
        return parts[self.submodule]

    def _inside(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.prefix_replace is not None:
            pattern, replacement = self.prefix_replace
            state = {re.sub(pattern, replacement, key): value for key, value in state.items()}
        prefix = f"{self.submodule}."
        below = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        return below or dict(state)


def _swapped(key: str, value: Tensor) -> Tensor:
    if "out_sem" not in key:
        return value
    first, second = _SWAPPED
    value = value.clone()
    value[[first, second]] = value[[second, first]]
    return value
