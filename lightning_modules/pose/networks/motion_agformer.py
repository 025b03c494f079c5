"""MotionAGFormer (Mehraban et al., 2024), with the keys of TaatiTeam/MotionAGFormer.

    h = joints_embed(x) + pos_embed
    per layer   a = attention over joints, then over frames;  g = graph over joints, then frames
                w = softmax(fusion([a, g]));  h = w0 a + w1 g
    y = head(tanh(rep_logit(norm(h))))

There is no position along time: the temporal graph is the only place that ties a network to a clip
length, by its batch normalisation over frames.

Shapes: B clips, T frames, J joints, C width `dim`; h is (B, T, J, C).
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from blocks import Recorded
from blocks.geometry.skeleton import H36M, MPI_INF_3DHP, agformer_adjacency
from blocks.graph import GraphConvolution, chain_graph
from blocks.self_attention import SelfAttention
from blocks.upstream import renamed
from lightning_modules.pose.networks.inferred import check_configuration
from lightning_modules.pose.networks.metaformer import Axis, MetaFormerBlock, along
from lightning_modules.pose.networks.temporal_convolution import MultiScaleTemporalConvolution

Temporal = Literal["similarity", "chain", "convolution"]
Body = Literal["upstream", "symmetric", "mpi_inf_3dhp"]

_UPSTREAM_NAMES: dict[str, str | None] = {
    "n_layers": "depth",
    "dim_in": "in_features",
    "dim_feat": "dim",
    "dim_rep": "dim_rep",
    "dim_out": "out_features",
    "mlp_ratio": "mlp_ratio",
    "attn_drop": "attention_dropout",
    "drop": "dropout",
    "drop_path": "drop_path",
    "num_heads": "num_heads",
    "qkv_bias": "qkv_bias",
    "qkv_scale": "qkv_scale",
    "hierarchical": "hierarchical",
    "use_adaptive_fusion": "adaptive_fusion",
    "graph_only": "graph_only",
    "neighbour_num": "neighbours",
    "temporal_connection_len": "chain_reach",
    "n_frames": "num_frames",
    # Read below, or of one value only.
    **dict.fromkeys(
        ("use_layer_scale", "layer_scale_init_value", "use_temporal_similarity", "use_tcn")
    ),
    **dict.fromkeys(("num_joints", "act_layer")),
}


class MotionAGFormer(Recorded, nn.Module):
    """Lifts keypoints to 3-D with an attention and a graph stream side by side.

    Maps (B, T, 17, in_features) to (B, T, 17, out_features). Published sizes:

        XS depth 12, dim 64, T 27      S depth 26, dim 64, T 81
        B  depth 16, dim 128, T 243    L depth 26, dim 128, T 243

    Args:
        depth: Layers.
        dim: Width C.
        num_frames: Clip length T.
        in_features: x, y and confidence of a keypoint; 5 with its velocity.
        out_features: Coordinates of a joint.
        dim_rep: Width of the representation before the head.
        mlp_ratio: Inner width of the MLPs as a multiple of C.
        num_heads: Attention heads.
        qkv_bias: Whether queries, keys and values have a bias.
        qkv_scale: Factor of the attention products; None is head width ** -0.5.
        dropout: In MLPs and after attention.
        attention_dropout: Of the attention weights.
        drop_path: Probability of dropping a branch for a sample, the same in every layer.
        layer_scale: Start of the residual branches' factors; None has none.
        adaptive_fusion: Whether the streams are weighted per token; else they are averaged.
        hierarchical: Whether the streams have half of the channels each, and the graph stream
            also receives what the attention stream found.
        temporal: Graph over the frames: the most similar frames, the next frames, or no graph but
            a multi-scale convolution.
        neighbours: Frames of the similarity graph, usually including the frame itself.
        chain_reach: Next frames in the chain.
        graph_only: Whether the graph stream is bare: no normalisation, MLP and layer scale.
        skeleton: Graph over the joints. `upstream` is that of the published weights, which lacks
            three directed edges; `symmetric` is the skeleton of Human3.6M.
    """

    def __init__(
        self,
        depth: int = 16,
        dim: int = 128,
        num_frames: int = 243,
        in_features: int = 3,
        out_features: int = 3,
        dim_rep: int = 512,
        mlp_ratio: float = 4,
        num_heads: int = 8,
        qkv_bias: bool = False,
        qkv_scale: float | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        drop_path: float = 0.0,
        layer_scale: float | None = 1e-5,
        adaptive_fusion: bool = True,
        hierarchical: bool = False,
        temporal: Temporal = "similarity",
        neighbours: int = 2,
        chain_reach: int = 1,
        graph_only: bool = False,
        skeleton: Body = "upstream",
    ) -> None:
        super().__init__()
        self.num_frames, self.in_features = num_frames, in_features
        width = dim // 2 if hierarchical else dim
        body = joint_graph(skeleton)
        joints = len(body)

        def block(mixer: nn.Module, axis: Axis) -> MetaFormerBlock:
            return MetaFormerBlock(mixer, axis, width, mlp_ratio, dropout, drop_path, layer_scale)

        def attention(axis: Axis) -> MetaFormerBlock:
            heads = SelfAttention(width, num_heads, qkv_bias, qkv_scale, attention_dropout, dropout)
            return block(heads, axis)

        def graph(axis: Axis) -> nn.Module:
            if axis == "joints":
                mixer: nn.Module = GraphConvolution(width, joints, body)
            elif temporal == "convolution":
                mixer = MultiScaleTemporalConvolution(width)
            else:
                chain = chain_graph(num_frames, chain_reach) if temporal == "chain" else None
                mixer = GraphConvolution(width, num_frames, chain, neighbours)
            return mixer if graph_only else block(mixer, axis)

        self.joints_embed = nn.Linear(in_features, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, joints, dim))
        self.layers = nn.ModuleList(
            TwoStreamLayer(
                attention("joints"), attention("frames"), graph("joints"), graph("frames"),
                dim=width, adaptive_fusion=adaptive_fusion, hierarchical=hierarchical,
            )
            for _ in range(depth)
        )  # fmt: skip
        self.norm = nn.LayerNorm(dim)
        self.rep_logit = nn.Sequential(OrderedDict(fc=nn.Linear(dim, dim_rep), act=nn.Tanh()))
        self.head = nn.Linear(dim_rep, out_features)

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the network from the constructor arguments of upstream's `MotionAGFormer`."""
        ours = renamed(config, _UPSTREAM_NAMES, "MotionAGFormer.from_upstream")
        if not config.get("use_layer_scale", True):
            ours["layer_scale"] = None
        else:
            ours["layer_scale"] = config.get("layer_scale_init_value", 1e-5)
        if config.get("use_tcn"):
            ours["temporal"] = "convolution"
        elif not config.get("use_temporal_similarity", True):
            ours["temporal"] = "chain"
        return cls(**ours)

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights as published; a clip length or size that differs is refused by what is.

        Args:
            state: Weights under upstream's keys.

        Raises:
            SuiteError: They are of another configuration, which the message names.
        """
        check_configuration(state, self.init_call["init_args"])
        return dict(state)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that may keep their size; the published recipe decays all."""
        return {"pos_embed", *(n for n, _ in self.named_parameters() if "layer_scale" in n)}

    def forward(self, x: Tensor) -> Tensor:
        """Lifts clips.

        Args:
            x: Keypoints, (B, T, J, in_features).

        Returns:
            Poses, (B, T, J, out_features).
        """
        out: Tensor = self.head(self.represent(x))
        return out

    def represent(self, x: Tensor) -> Tensor:
        """What the head reads, (B, T, J, dim_rep)."""
        h = self.joints_embed(x) + self.pos_embed
        for index, layer in enumerate(self.layers):
            h = self.mixed(index, layer, h)
        out: Tensor = self.rep_logit(self.norm(h))
        return out

    def mixed(self, index: int, layer: nn.Module, h: Tensor) -> Tensor:
        """What follows layer `index`, (B, T, J, C); a place for what else sits there."""
        out: Tensor = layer(h)
        return out


class TwoStreamLayer(nn.Module):
    """Attention and graph stream on (B, T, J, C), and their weighted mean.

    Args:
        att_spatial: Attention block over joints.
        att_temporal: Attention block over frames.
        graph_spatial: Graph block, or bare graph convolution, over joints.
        graph_temporal: The same over frames.
        dim: Width of a stream.
        adaptive_fusion: Whether a linear layer finds the weights.
        hierarchical: Whether each stream has half of the channels.
    """

    def __init__(
        self,
        att_spatial: nn.Module,
        att_temporal: nn.Module,
        graph_spatial: nn.Module,
        graph_temporal: nn.Module,
        *,
        dim: int,
        adaptive_fusion: bool,
        hierarchical: bool,
    ) -> None:
        super().__init__()
        self.hierarchical = hierarchical
        self.att_spatial, self.att_temporal = att_spatial, att_temporal
        self.graph_spatial, self.graph_temporal = graph_spatial, graph_temporal
        # A hierarchical layer has one too, which nothing reads: so have the published files.
        self.fusion = fusion(dim, (0.5, 0.5)) if adaptive_fusion else None

    def forward(self, h: Tensor) -> Tensor:
        """Mixes (B, T, J, C)."""
        if self.hierarchical:
            first, second = h.chunk(2, dim=-1)
            a = self.attend(first)
            return torch.cat((a, self.convolve(second + a)), -1)
        return fuse(self.fusion, self.attend(h), self.convolve(h))

    def attend(self, h: Tensor) -> Tensor:
        """The attention stream."""
        out: Tensor = self.att_temporal(self.att_spatial(h))
        return out

    def convolve(self, h: Tensor) -> Tensor:
        """The graph stream."""
        return _graph(self.graph_temporal, "frames", _graph(self.graph_spatial, "joints", h))


def fuse(weights: nn.Linear | None, *streams: Tensor) -> Tensor:
    """Mean of streams (B, T, J, C), weighted per token where a layer finds the weights."""
    if weights is None:
        return torch.stack(streams).mean(0)
    shares: Tensor = weights(torch.cat(streams, -1)).softmax(-1)
    total = streams[0] * shares[..., :1]
    for i, stream in enumerate(streams[1:], start=1):
        total = total + stream * shares[..., i : i + 1]
    return total


def fusion(dim: int, logits: tuple[float, ...]) -> nn.Linear:
    """A layer that starts with the same logits, one per stream of width `dim`, for all tokens."""
    layer = nn.Linear(len(logits) * dim, len(logits))
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor(logits))
    return layer


def joint_graph(skeleton: Body) -> Tensor:
    """Adjacency of the joints, (17, 17)."""
    if skeleton == "mpi_inf_3dhp":
        return MPI_INF_3DHP.adjacency()
    return agformer_adjacency() if skeleton == "upstream" else H36M.adjacency()


def _graph(module: nn.Module, axis: Axis, h: Tensor) -> Tensor:
    """A block sees its axis by itself; a bare convolution has to be shown it."""
    if isinstance(module, MetaFormerBlock):
        out: Tensor = module(h)
        return out
    return along(axis, module, h)
