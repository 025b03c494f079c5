"""An attention-free lifter: bidirectional Mamba over body and time, and the skeleton's graph.

    per layer   a = mamba over joints, then over frames;  g = graph over joints
                w = softmax(fusion([a, g]));  h = w0 a + w1 g

The frame is MotionAGFormer's. Time enters through the scans alone: cost is linear in the clip's
length, no parameter depends on it, and with `causal` a pose depends on no later frame, so that
`step` lifts a stream with constant memory.

Shapes: B clips, T frames, J joints, C width `dim`, D `d_inner`; h is (B, T, J, C).
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from blocks import BiMamba, Mamba, Recorded
from blocks.errors import SuiteError
from blocks.geometry.skeleton import H36M, LIMB_ORDER
from blocks.mamba import MambaCache
from lightning_modules.pose.networks.mamba_gcn_block import SkeletonGraph, temporal_mixer
from lightning_modules.pose.networks.metaformer import MetaFormerBlock, scaled
from lightning_modules.pose.networks.motion_agformer import fuse, fusion


class LimbScan(nn.Module):
    """A bidirectional scan over the joints of a frame, limb after limb, (B', J, C) to the same.

    Args:
        dim: Width C.
        d_inner: Inner width of the scan.
        d_state: States per channel of the scan.
    """

    order: Tensor
    back: Tensor

    def __init__(self, dim: int, d_inner: int, d_state: int) -> None:
        super().__init__()
        self.mamba = BiMamba(dim, d_inner=d_inner, d_state=d_state)
        order = torch.tensor(LIMB_ORDER)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the joints of (B', J, C)."""
        out: Tensor = self.mamba(x[:, self.order])[:, self.back]
        return out


@dataclass
class LifterState:
    """What a causal `HybridLifter` remembers of a stream: one memory per layer.

    Args:
        caches: Of the scans over frames, for B J sequences each.
    """

    caches: list[MambaCache]

    @property
    def nbytes(self) -> int:
        """Memory in bytes; the same after any number of frames."""
        return sum(x.nbytes for c in self.caches for x in (c.conv_state, c.ssm_state))


class HybridLifter(Recorded, nn.Module):
    """Lifts keypoints without attention, (B, T, 17, in_features) to (B, T, 17, out_features).

    Args:
        depth: Layers.
        dim: Width C.
        d_inner: Inner width D of the scans.
        in_features: x, y and confidence of a keypoint.
        out_features: Coordinates of a joint.
        dim_rep: Width of the representation before the head.
        mlp_ratio: Inner width of the MLPs as a multiple of C.
        dropout: In the MLPs.
        drop_path: Probability of dropping a branch for a sample.
        layer_scale: Start of the residual branches' factors; None has none.
        causal: Whether the scans over frames run forward only.
        d_state: States per channel of the scans.
    """

    def __init__(
        self,
        depth: int = 12,
        dim: int = 128,
        d_inner: int = 256,
        in_features: int = 3,
        out_features: int = 3,
        dim_rep: int = 512,
        mlp_ratio: float = 2,
        dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = 1e-5,
        causal: bool = False,
        d_state: int = 16,
    ) -> None:
        super().__init__()
        self.in_features, self.causal = in_features, causal
        options = (dim, mlp_ratio, dropout, drop_path, layer_scale)
        self.joints_embed = nn.Linear(in_features, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, len(H36M.names), dim))
        self.layers = nn.ModuleList(
            HybridLayer(
                MetaFormerBlock(LimbScan(dim, d_inner, d_state), "joints", *options),
                MetaFormerBlock(temporal_mixer(dim, d_inner, causal, d_state), "frames", *options),
                MetaFormerBlock(SkeletonGraph(dim), "joints", *options),
                dim,
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(dim)
        self.rep_logit = nn.Sequential(OrderedDict(fc=nn.Linear(dim, dim_rep), act=nn.Tanh()))
        self.head = nn.Linear(dim_rep, out_features)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that keep their size: positions, layer scales, the scans' own."""
        found = {"pos_embed", *(n for n, _ in self.named_parameters() if "layer_scale" in n)}
        for prefix, module in self.named_modules():
            if isinstance(module, Mamba | BiMamba):
                found |= {f"{prefix}.{name}" for name in module.no_weight_decay()}
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Lifts clips of any length.

        Args:
            x: Keypoints, (B, T, J, in_features).

        Returns:
            Poses, (B, T, J, out_features).
        """
        h = self.joints_embed(x) + self.pos_embed
        for layer in self.layers:
            h = layer(h)
        out: Tensor = self.head(self.rep_logit(self.norm(h)))
        return out

    def allocate_state(self, batch_size: int = 1) -> LifterState:
        """The memory of `batch_size` streams that have not begun.

        Raises:
            SuiteError: The network is not causal.
        """
        if not self.causal:
            raise SuiteError(
                expected="a causal network",
                found="scans that also run backwards in time",
                where="HybridLifter.allocate_state",
                cure="train with network.init_args.causal: true, or predict in windows",
            )
        sequences = batch_size * len(H36M.names)
        return LifterState(
            [layer.scan_over_frames.allocate_cache(sequences) for layer in self._own()]
        )

    @torch.no_grad()
    def step(self, x: Tensor, state: LifterState) -> Tensor:
        """Lifts one more frame; equals the last frame of `forward` on all frames so far.

        Meant for a network in evaluation mode.

        Args:
            x: Keypoints of a frame, (B, J, in_features).
            state: Of the stream; updated.

        Returns:
            Pose, (B, J, out_features).
        """
        h = (self.joints_embed(x) + self.pos_embed).unsqueeze(1)
        for layer, cache in zip(self._own(), state.caches, strict=True):
            h = layer.step(h, cache)
        out: Tensor = self.head(self.rep_logit(self.norm(h)))
        return out.squeeze(1)

    def _own(self) -> list["HybridLayer"]:
        return cast("list[HybridLayer]", list(self.layers))


class HybridLayer(nn.Module):
    """Scan and graph stream on (B, T, J, C), and their weighted mean.

    Args:
        scan_spatial: Block over joints.
        scan_temporal: Block over frames.
        graph_spatial: Block over joints.
        dim: Width C.
    """

    def __init__(
        self,
        scan_spatial: MetaFormerBlock,
        scan_temporal: MetaFormerBlock,
        graph_spatial: MetaFormerBlock,
        dim: int,
    ) -> None:
        super().__init__()
        self.scan_spatial, self.scan_temporal = scan_spatial, scan_temporal
        self.graph_spatial = graph_spatial
        self.fusion = fusion(dim, (0.5, 0.5))

    @property
    def scan_over_frames(self) -> Mamba:
        """The scan that a stream has to remember."""
        mixer = self.scan_temporal.mixer
        assert isinstance(mixer, Mamba)
        return mixer

    def forward(self, h: Tensor) -> Tensor:
        """Mixes (B, T, J, C)."""
        a = self.scan_temporal(self.scan_spatial(h))
        return fuse(self.fusion, a, self.graph_spatial(h))

    def step(self, h: Tensor, cache: MambaCache) -> Tensor:
        """Mixes one frame (B, 1, J, C), the scan over frames going on from `cache`."""
        block, x = self.scan_temporal, self.scan_spatial(h)
        tokens = block.norm1(x).flatten(0, 2)
        mixed = self.scan_over_frames.step(tokens, cache).view(x.shape)
        x = x + scaled(mixed, block.layer_scale_1)
        x = x + scaled(block.mlp(block.norm2(x)), block.layer_scale_2)
        return fuse(self.fusion, x, self.graph_spatial(h))
