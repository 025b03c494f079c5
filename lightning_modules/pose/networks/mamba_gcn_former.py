"""MotionAGFormer with a few Mamba-GCN blocks: after layers, or as a third stream inside them.

    after       h = (1 - alpha) h + alpha block(h)               `mamba_gcn`
    inside      w = softmax(fusion([a, g, m]));  h = w0 a + w1 g + w2 m,  m = block(h)    `full`

With alpha 0 both are MotionAGFormer, to the bit; weights of a MotionAGFormer fit into both.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.geometry.skeleton import H36M, MPI_INF_3DHP
from lightning_modules.pose.networks.mamba_gcn_block import MambaGCNBlock
from lightning_modules.pose.networks.motion_agformer import (
    Body,
    MotionAGFormer,
    Temporal,
    TwoStreamLayer,
    fuse,
    fusion,
)

# Of a softmax: exactly 0 beside anything else, and still a number that averages may touch.
_NEVER = -1e4


class MambaGCNFormer(MotionAGFormer):
    """Attention, graph and Mamba, (B, T, 17, in_features) to (B, T, 17, out_features).

    Args:
        depth: Layers.
        dim: Width C.
        num_frames: Clip length T.
        placement: Where the blocks sit: `after` a layer, mixed in with a fixed weight, or `inside`
            it, as a third stream beside attention and graph.
        mamba_gcn_layers: Number of blocks, evenly spaced.
        mamba_gcn_dim: Inner width of their scans.
        fusion_alpha: Weight of a block, 0 <= alpha < 1; inside a layer the weight it starts with.
        fusion_mode: Inside a layer: weights per token (`adaptive`), or alpha for ever (`fixed`).
        gcn_dropout: After their graph convolutions.
        causal: Whether their scans run forward only.
        in_features: x, y and confidence of a keypoint; 5 with its velocity.
        out_features: Coordinates of a joint.
        dim_rep: Width of the representation before the head.
        mlp_ratio: Inner width of the MLPs as a multiple of C.
        num_heads: Attention heads.
        dropout: In MLPs and after attention.
        drop_path: Probability of dropping a branch for a sample, the same in every layer.
        temporal: Graph over the frames, see `MotionAGFormer`.
        neighbours: Frames of the similarity graph.
        chain_reach: Next frames in the chain.
        skeleton: Graph over the joints in MotionAGFormer's own layers; blocks use the true one.
    """

    def __init__(
        self,
        depth: int = 16,
        dim: int = 128,
        num_frames: int = 243,
        placement: Literal["after", "inside"] = "after",
        mamba_gcn_layers: int = 4,
        mamba_gcn_dim: int = 256,
        fusion_alpha: float = 0.5,
        fusion_mode: Literal["adaptive", "fixed"] = "adaptive",
        gcn_dropout: float = 0.1,
        causal: bool = False,
        in_features: int = 3,
        out_features: int = 3,
        dim_rep: int = 512,
        mlp_ratio: float = 4,
        num_heads: int = 8,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        temporal: Temporal = "similarity",
        neighbours: int = 2,
        chain_reach: int = 1,
        skeleton: Body = "upstream",
    ) -> None:
        super().__init__(
            depth=depth, dim=dim, num_frames=num_frames, in_features=in_features,
            out_features=out_features, dim_rep=dim_rep, mlp_ratio=mlp_ratio, num_heads=num_heads,
            dropout=dropout, drop_path=drop_path, temporal=temporal, neighbours=neighbours,
            chain_reach=chain_reach, skeleton=skeleton,
        )  # fmt: skip
        _check(depth, mamba_gcn_layers, fusion_alpha)
        self.placement, self.alpha, self.fusion_mode = placement, fusion_alpha, fusion_mode
        body = MPI_INF_3DHP if skeleton == "mpi_inf_3dhp" else H36M
        self.places = block_places(depth, mamba_gcn_layers)
        self.mamba_gcn = nn.ModuleDict(
            {
                str(place): MambaGCNBlock(
                    dim, mamba_gcn_dim, gcn_dropout, drop_path, causal, skeleton=body
                )
                for place in self.places
            }
        )
        if placement == "inside":
            for place in self.places:
                three = fusion(dim, self._first_logits())
                self.layers[place].fusion = three.requires_grad_(fusion_mode == "adaptive")

    def mixed(self, index: int, layer: nn.Module, h: Tensor) -> Tensor:
        """What follows layer `index` and its block, (B, T, J, C)."""
        if index not in self.places:
            return super().mixed(index, layer, h)
        block = self.mamba_gcn[str(index)]
        if self.placement == "after":
            h = layer(h)
            return torch.lerp(h, block(h), self.alpha)
        assert isinstance(layer, TwoStreamLayer)
        return fuse(layer.fusion, layer.attend(h), layer.convolve(h), block(h))

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Makes room in the weights of a MotionAGFormer: the third stream gets the share alpha."""
        adapted = super().adapt_state_dict(state)
        if self.placement == "after":
            return adapted
        for place in self.places:
            name = f"layers.{place}.fusion"
            weight, bias = adapted.get(f"{name}.weight"), adapted.get(f"{name}.bias")
            if weight is None or bias is None or len(bias) == 3:
                continue
            third = weight.new_zeros((3, weight.shape[1] * 3 // 2))
            third[:2, : weight.shape[1]] = weight
            share = _log(self.alpha) - _log(1 - self.alpha) + float(bias.logsumexp(0))
            adapted[f"{name}.weight"] = third
            adapted[f"{name}.bias"] = torch.cat((bias, bias.new_tensor([max(share, _NEVER)])))
        return adapted

    def fresh_entries(self) -> tuple[str, ...]:
        """What weights of a MotionAGFormer do not have."""
        return ("mamba_gcn.*",)

    def _first_logits(self) -> tuple[float, ...]:
        """Logits of attention, graph and block."""
        rest = _log((1 - self.alpha) / 2)
        return rest, rest, _log(self.alpha)


def block_places(depth: int, count: int) -> tuple[int, ...]:
    """Layers that carry a block: the last, and evenly before it."""
    return tuple((i + 1) * depth // count - 1 for i in range(count))


def _log(x: float) -> float:
    return max(math.log(x), _NEVER) if x > 0 else _NEVER


def _check(depth: int, count: int, alpha: float) -> None:
    for fine, expected, found in (
        (0 <= alpha < 1, "0 <= fusion_alpha < 1", f"fusion_alpha={alpha}"),
        (1 <= count <= depth, f"1 to {depth} blocks, one per layer", f"mamba_gcn_layers={count}"),
    ):
        if not fine:
            raise SuiteError(
                expected=expected,
                found=found,
                where="MambaGCNFormer",
                cure="4 blocks with a share of 0.5 are the defaults",
            )
