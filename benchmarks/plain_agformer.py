"""MotionAGFormer written down as its formulas stand: the peer of ours in the pose benchmark.

Degrees are diagonal matrices, D^-1/2 A D^-1/2 two products of them in every call, attention a
softmax between two products. Weights have the keys of TaatiTeam/MotionAGFormer, so that ours can be
loaded and must give the same poses.

Shapes: B clips, T frames, J joints, C width; N are the tokens a mixer sees, J or T.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HEADS, _RATIO, _NEIGHBOURS = 8, 4, 2


class PlainAGFormer(nn.Module):
    """Lifts (B, T, J, 3) to (B, T, J, 3).

    Args:
        adjacency: Graph of the joints, (J, J).
        depth: Layers.
        dim: Width C.
        num_frames: Clip length T.
        dim_rep: Width before the head.
    """

    def __init__(
        self, adjacency: Tensor, depth: int, dim: int, num_frames: int, dim_rep: int = 512
    ) -> None:
        super().__init__()
        self.joints_embed = nn.Linear(3, dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, len(adjacency), dim))
        self.layers = nn.ModuleList(_Layer(adjacency, dim, num_frames) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.rep_logit = nn.Sequential()
        self.rep_logit.add_module("fc", nn.Linear(dim, dim_rep))
        self.rep_logit.add_module("act", nn.Tanh())
        self.head = nn.Linear(dim_rep, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Lifts clips."""
        h = self.joints_embed(x) + self.pos_embed
        for layer in self.layers:
            h = layer(h)
        out: Tensor = self.head(self.rep_logit(self.norm(h)))
        return out


class _Layer(nn.Module):
    def __init__(self, adjacency: Tensor, dim: int, num_frames: int) -> None:
        super().__init__()
        joints = len(adjacency)
        self.att_spatial = _Block(_Attention(dim), dim, over_frames=False)
        self.att_temporal = _Block(_Attention(dim), dim, over_frames=True)
        self.graph_spatial = _Block(_Graph(dim, joints, adjacency), dim, over_frames=False)
        self.graph_temporal = _Block(_Graph(dim, num_frames, None), dim, over_frames=True)
        self.fusion = nn.Linear(2 * dim, 2)

    def forward(self, h: Tensor) -> Tensor:
        a = self.att_temporal(self.att_spatial(h))
        g = self.graph_temporal(self.graph_spatial(h))
        w = self.fusion(torch.cat((a, g), -1)).softmax(-1)
        out: Tensor = a * w[..., :1] + g * w[..., 1:]
        return out


class _Block(nn.Module):
    def __init__(self, mixer: nn.Module, dim: int, over_frames: bool) -> None:
        super().__init__()
        self.mixer, self.over_frames = mixer, over_frames
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        hidden = _RATIO * dim
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), 1e-5))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm1(x)
        if self.over_frames:
            tokens = tokens.transpose(1, 2)
        mixed = self.mixer(tokens.flatten(0, 1)).view(tokens.shape)
        if self.over_frames:
            mixed = mixed.transpose(1, 2)
        x = x + self.layer_scale_1 * mixed
        y = self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        out: Tensor = x + self.layer_scale_2 * y
        return out


class _Attention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, _HEADS, -1)).permute(2, 0, 3, 1, 4)
        shares = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)
        out: Tensor = self.proj((shares @ v).transpose(1, 2).flatten(2))
        return out


class _Graph(nn.Module):
    adjacency: Tensor | None

    def __init__(self, dim: int, nodes: int, adjacency: Tensor | None) -> None:
        super().__init__()
        self.U, self.V = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.batch_norm = nn.BatchNorm1d(nodes)
        self.register_buffer("adjacency", adjacency, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.adjacency is None:
            similarity = x.detach() @ x.detach().mT
            least = similarity.topk(_NEIGHBOURS, dim=-1).values[..., -1:]
            A = (similarity >= least).to(x.dtype)
        else:
            A = self.adjacency.expand(len(x), -1, -1)
        D = torch.diag_embed(A.sum(-1).rsqrt())
        y = D @ A @ D @ self.V(x) + self.U(x)
        out: Tensor = torch.relu(x + self.batch_norm(y))
        return out
