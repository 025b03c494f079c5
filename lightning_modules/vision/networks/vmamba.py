"""VMamba: a pyramid of 2-D selective scans (arXiv 2401.10166), number for number MzeroMiko/VMamba.

Images (B, 3, H, W) become a grid at a quarter of their size; each stage mixes it with VSS blocks
and hands on half the rows and columns at twice the width:

    x = stem(images)                            (B, H / 4, W / 4, D)
    x = downsample(blocks(x))                   (B, H / 8, W / 8, 2 D), and so on
    logits = head(mean over positions of norm(x))

ImageNet-1K Top-1 at 224 pixels (upstream's README): the first models reach 82.2 / 83.5 / 83.7 as
tiny / small / base, the current ones 82.6 / 83.6 / 83.9; see `timm_vmamba` for all nine. Grids are
channels last; any image size will do. The residual stream is float32 under every precision.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from blocks import Recorded, drop_path_rates
from blocks.errors import SuiteError
from lightning_modules.vision.networks.grid_resolution import downsample as new_downsample
from lightning_modules.vision.networks.grid_resolution import stem as new_stem
from lightning_modules.vision.networks.intermediates import chosen_indices
from lightning_modules.vision.networks.upstream_vmamba import current_entries, network_arguments
from lightning_modules.vision.networks.vss_block import GridNorm, VSSBlock, initialise_linears

_SCAN_PARAMETERS = ("A_logs", "Ds", "dt_projs_bias")


class VMamba(Recorded, nn.Module):
    """VMamba classifier and backbone; the defaults are the current tiny model, `s1l8`.

    Args:
        depths: Blocks of each stage.
        dim: Width of the first stage (96 tiny and small, 128 base); it doubles from stage to stage.
        num_classes: Outputs of the head; 0 leaves the features, `null` takes as many as the data
            set has classes.
        in_chans: Channels of the images.
        d_state: States per channel of the scan; 16 in the first models, 1 in the current ones.
        ssm_ratio: Inner width of the scan as a multiple of its stage's width.
        dt_rank: Rank of the step-size projections; "auto" is ceil(width / 16).
        conv_bias: Whether the convolution before the scan has a bias, as in the first models.
        forward_type: Form of the scan: `v0` in the first models, `v05_noz` in the current ones;
            for all see `blocks.forward_type`.
        mlp_ratio: Inner width of each block's MLP; 0 = no MLP, as in the first models.
        stem: `v1` patches of 4 pixels (first models) or `v2` two overlapping convolutions.
        downsample: `v1` patch merging (first models) or `v3` a strided convolution.
        drop_path: Stochastic depth rate of the last block, growing linearly from 0.
        grad_checkpointing: Recompute each block in the backward pass instead of keeping its
            activations: less memory, about a third more time.
    """

    # timm's contract for whoever swaps or skips the first and the last layer.
    pretrained_cfg: dict[str, Any] = {
        "first_conv": "patch_embed.0",
        "classifier": "classifier.head",
    }
    output_fmt = "NHWC"

    def __init__(
        self,
        depths: Sequence[int] = (2, 2, 8, 2),
        dim: int = 96,
        num_classes: int | None = 1000,
        in_chans: int = 3,
        d_state: int = 1,
        ssm_ratio: float = 1.0,
        dt_rank: int | Literal["auto"] = "auto",
        conv_bias: bool = False,
        forward_type: str = "v05_noz",
        mlp_ratio: float = 4.0,
        stem: Literal["v1", "v2"] = "v2",
        downsample: Literal["v1", "v3"] = "v3",
        drop_path: float = 0.2,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.in_chans = num_classes, in_chans
        self.grad_checkpointing = grad_checkpointing
        self.patch_embed = new_stem(stem, in_chans, dim)
        block = partial(
            VSSBlock,
            d_state=d_state,
            ssm_ratio=ssm_ratio,
            dt_rank=dt_rank,
            conv_bias=conv_bias,
            forward_type=forward_type,
            mlp_ratio=mlp_ratio,
        )
        rates = iter(drop_path_rates(sum(depths), drop_path))
        last = len(depths) - 1
        self.layers = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        for index, depth in enumerate(depths):
            width = dim << index
            blocks = nn.Sequential(*(block(width, drop_path=next(rates)) for _ in range(depth)))
            parts: dict[str, nn.Module] = {"blocks": blocks}
            if index < last:
                parts["downsample"] = new_downsample(downsample, width)
            self.layers.append(nn.ModuleDict(parts))
            stage = {"num_chs": width, "reduction": 4 << index, "module": f"layers.{index}.blocks"}
            self.feature_info.append(stage)
        self.num_features = dim << last
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.classifier = nn.ModuleDict({"norm": GridNorm(self.num_features), "head": head})
        initialise_linears(self)

    @classmethod
    def from_upstream(cls, config: dict[str, Any]) -> Self:
        """Builds the model from the constructor arguments of MzeroMiko/VMamba's `VSSM`."""
        return cls(**network_arguments(config))

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images.

        Args:
            images: (B, in_chans, H, W), normalised, any H and W from 4 pixels.

        Returns:
            Logits (B, num_classes).
        """
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Normalised grid of the last stage, (B, H / 32, W / 32, 8 D) with four stages."""
        x = self._embed(images)
        for index in range(len(self.layers)):
            x = self._stage(index, x)
        return self._finish(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pools the grid of `forward_features` and applies the head.

        Args:
            x: (B, rows, columns, num_features).
            pre_logits: Return the pooled features (B, num_features) instead of logits.
        """
        features = x.mean((1, 2))
        return features if pre_logits else self.classifier["head"](features)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NHWC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Outputs of chosen stages, a pyramid for dense heads (the signature is timm's).

        Args:
            images: (B, in_chans, H, W).
            indices: Stage numbers, negative from the end; an int n = the last n; `None` = all.
            norm: Apply the final norm to the last stage; the others have none.
            stop_early: Skip the stages after the last wanted one.
            output_fmt: `NCHW` maps (B, width, rows, columns) or `NHWC` grids.
            intermediates_only: Return only the list.

        Returns:
            Final grid of `forward_features` and the list, or the list alone. Stopped before the
            last stage, the grid is that of the last stage run, and not normalised.
        """
        wanted, stages = chosen_indices(indices, len(self.layers)), len(self.layers)
        run = max(wanted) + 1 if stop_early else stages
        x, found = self._embed(images), []
        for index in range(run):
            x = self._stage(index, x)
            if index in wanted:
                grid = self._finish(x) if norm and index == stages - 1 else x
                found.append(grid.permute(0, 3, 1, 2) if output_fmt == "NCHW" else grid)
        if intermediates_only:
            return found
        return self._finish(x) if run == stages else x, found

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.classifier["head"]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by a freshly initialised one; 0 classes leave the features."""
        self.num_classes = num_classes
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        initialise_linears(head)
        self.classifier["head"] = head.to(next(self.parameters()).device)
        self.init_call["init_args"]["num_classes"] = num_classes

    def no_weight_decay(self) -> set[str]:
        """The scans' own parameters; timm reads it, our optimiser groups know them anyway."""
        return {name for name, _ in self.named_parameters() if name.endswith(_SCAN_PARAMETERS)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem and blocks (`coarse`: stages) for layer-wise learning rates (timm's contract).

        What follows a stage's last block, downsampling or the final norm, goes with that block.
        """
        after = (99999,)
        return {
            "stem": r"^patch_embed",
            "blocks": [(r"^layers\.(\d+)", None), (r"^classifier\.norm", after)]
            if coarse
            else [
                (r"^layers\.(\d+)\.blocks\.(\d+)", None),
                (r"^layers\.(\d+)\.downsample", after),
                (r"^classifier\.norm", after),
            ],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def adapt_state_dict(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Fits weights of upstream's older and channel-first models to this one.

        Args:
            state: Upstream or own entries; not changed.

        Returns:
            The entries under today's keys, 1x1 convolutions as matrices.
        """
        return current_entries(state)

    def _embed(self, images: Tensor) -> Tensor:
        if images.dim() != 4 or images.shape[1] != self.in_chans or min(images.shape[2:]) < 4:
            raise SuiteError(
                expected=f"images (batch, {self.in_chans}, height, width) of at least 4 pixels",
                found=f"shape {tuple(images.shape)}",
                where="VMamba.forward",
                cure="set in_chans to the channels of the data, or enlarge its img_size",
            )
        x: Tensor = self.patch_embed(images.permute(0, 2, 3, 1))
        return x

    def _stage(self, index: int, x: Tensor) -> Tensor:
        """Blocks of a stage on the output of the stage before, (B, H, W, D) in float32."""
        if index > 0:
            x = self.layers[index - 1].get_submodule("downsample")(x)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for block in self.layers[index].get_submodule("blocks").children():
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x

    def _finish(self, x: Tensor) -> Tensor:
        grid: Tensor = self.classifier["norm"](x)
        return grid
