"""Graph convolution with a symmetric normalisation (Kipf and Welling, 2017) and a skip of its own.

    out = relu(x + BatchNorm(D^-1/2 A D^-1/2 V(x) + U(x)))         D = row sums of A

as TaatiTeam/MotionAGFormer has it. The degrees scale rows, before and after the product with A:
two products of N x N matrices less than writing the formula down.

Axes: B graphs, N nodes, C channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks.errors import SuiteError


class GraphConvolution(nn.Module):
    """Mixes the nodes of each graph, (B, N, C) to (B, N, C).

    Batch normalisation counts per node, over graphs and channels.

    Args:
        dim: Width C.
        num_nodes: Nodes N.
        adjacency: Fixed graph (N, N), row i listing what node i receives from; it is no part of
            the state dict. None: every sample has its own, node i receiving from the `neighbours`
            nodes whose features resemble its own most.
        neighbours: See `adjacency`; ties make more of them.
    """

    adjacency: Tensor | None

    def __init__(
        self, dim: int, num_nodes: int, adjacency: Tensor | None = None, neighbours: int = 2
    ) -> None:
        super().__init__()
        self.neighbours = neighbours
        self.U, self.V = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.batch_norm = nn.BatchNorm1d(num_nodes)
        self.register_buffer("adjacency", adjacency, persistent=False)
        for layer in (self.U, self.V):
            nn.init.normal_(layer.weight, 0, math.sqrt(2 / dim))

    def forward(self, x: Tensor) -> Tensor:
        """Mixes the nodes of (B, N, C)."""
        nodes = self.batch_norm.num_features
        if x.shape[1] != nodes:
            raise SuiteError(
                expected=f"{nodes} nodes, as the batch normalisation was built for",
                found=f"{x.shape[1]}",
                where="GraphConvolution",
                cure="over time: give clips of the length the network was built with, or "
                "predict longer ones in windows",
            )
        A = nearest_graph(x, self.neighbours) if self.adjacency is None else self.adjacency
        V_x, U_x = joint_linear(x, self.V, self.U)
        y = propagate(A.to(x.dtype), V_x) + U_x
        return torch.relu(x + self.batch_norm(y))


def joint_linear(x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """What layers with biases make of the same x, by one product instead of one for each."""
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    widths = [layer.out_features for layer in layers]
    return torch.split(F.linear(x, weight, bias), widths, dim=-1)


def propagate(A: Tensor, x: Tensor) -> Tensor:
    """D^-1/2 A D^-1/2 x for a graph (N, N), or one per sample (B, N, N), and x (B, N, C)."""
    scale = A.sum(-1, keepdim=True).rsqrt()
    return scale * (A @ (scale * x))


@torch.no_grad()
def nearest_graph(x: Tensor, neighbours: int) -> Tensor:
    """For (B, N, C) the graph (B, N, N) of the most similar nodes by inner product.

    A node is usually its own nearest. No gradient passes through the choice.
    """
    similarity = x @ x.mT
    threshold = similarity.topk(neighbours, dim=-1).values[..., -1:]
    return (similarity >= threshold).to(x.dtype)


def chain_graph(length: int, reach: int) -> Tensor:
    """(N, N): every node receives from itself and from the next `reach` ones, cut at the end."""
    offset = torch.arange(length).unsqueeze(0) - torch.arange(length).unsqueeze(1)
    return ((offset >= 0) & (offset <= reach)).float()
