"""A U-Net of bidirectional Mamba blocks over serialized voxels: the suite's own 3-D backbone.

Voxels (V, 3) to features (V, 96). Point Transformer V3 (arXiv 2312.10035) showed that sequences
along space-filling curves can stand for neighbourhoods; here scans replace its attention:

    x += depthwise conv(x)                                 where it is
    x += unsort(BiMamba(sort(norm(x))))                    along one of four curves
    x += mlp(norm(x))

Levels are joined by the maximum over cells of 2 x 2 x 2 and, going up, by adding the parent's
features. There are no published weights.
"""

from collections.abc import Iterator, Sequence
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import BiMamba, DropPath, Recorded, drop_path_rates
from blocks.errors import SuiteError
from blocks.mlp import Mlp
from blocks.serialization import ORDERS, Order
from blocks.sparse import DepthwiseSparseConv3d, SparseConv3d, Voxels
from blocks.sparse.convolution import wide_type
from lightning_modules.scannet.networks.serialized_levels import SerializedLevel


class SerializedMambaUNet(Recorded, nn.Module):
    """The backbone.

    A small form for CPUs has channels 16, 32, 48, 64, depths 1, decoder channels 32, 32, 48.

    Args:
        in_channels: Channels of a voxel: its colour.
        channels: Width of each level of the encoder, finest first.
        depths: Blocks in each of them.
        decoder_channels: Width of each level of the decoder, finest first; one fewer.
        decoder_depths: Blocks in each of them.
        out_channels: Width of the features.
        stem_kernel: Side of the first kernel in voxels.
        d_state: States per channel of the scans.
        mlp_ratio: Hidden width of a perceptron as a multiple of the block's.
        drop_path: Stochastic depth rate of the deepest block, growing linearly from 0.
        mamba_from_stage: First level whose blocks scan; finer ones have convolution and perceptron
            only, for their sequences are as long as the cloud has voxels.
        shuffle_orders: In training, deal the four curves to the blocks anew at each step.
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (32, 64, 128, 256, 384),
        depths: Sequence[int] = (2, 2, 2, 6, 2),
        decoder_channels: Sequence[int] = (96, 96, 128, 256),
        decoder_depths: Sequence[int] = (1, 1, 1, 1),
        out_channels: int = 96,
        stem_kernel: int = 5,
        d_state: int = 16,
        mlp_ratio: float = 2.0,
        drop_path: float = 0.1,
        mamba_from_stage: int = 1,
        shuffle_orders: bool = True,
    ) -> None:
        super().__init__()
        _check(channels, depths, decoder_channels, decoder_depths)
        self.out_channels, self.shuffle_orders = out_channels, shuffle_orders

        def stage(level: int, dim: int, rates: Sequence[float]) -> nn.ModuleList:
            states = d_state if level >= mamba_from_stage else None
            hidden = int(dim * mlp_ratio)
            return nn.ModuleList(_Block(dim, states, hidden, rate) for rate in rates)

        self.stem = SparseConv3d(in_channels, channels[0], stem_kernel)
        self.stem_norm = _NormAct(channels[0])
        rates = iter(drop_path_rates(sum(depths), drop_path))
        self.encoder = nn.ModuleList(
            stage(level, dim, [next(rates) for _ in range(depth)])
            for level, (dim, depth) in enumerate(zip(channels, depths, strict=True))
        )
        self.pools = nn.ModuleList(
            _Pool(dim, above) for dim, above in zip(channels[:-1], channels[1:], strict=True)
        )
        rates = iter(drop_path_rates(sum(decoder_depths), drop_path))
        self.decoder = nn.ModuleList(
            stage(level, dim, [next(rates) for _ in range(depth)])
            for level, (dim, depth) in enumerate(zip(decoder_channels, decoder_depths, strict=True))
        )
        below = [*decoder_channels[1:], channels[-1]]
        self.unpools = nn.ModuleList(
            _Unpool(deep, skip, dim)
            for deep, skip, dim in zip(below, channels[:-1], decoder_channels, strict=True)
        )
        self.norm = nn.LayerNorm(decoder_channels[0])
        self.head = nn.Linear(decoder_channels[0], out_channels)

    def forward(self, voxels: Voxels) -> Tensor:
        """Maps voxels to features (V, out_channels), in the order of the voxels."""
        orders = self._orders()
        level = SerializedLevel.finest(voxels)
        x = self.stem_norm(self.stem(voxels.features, level.grid))
        x = _through(self.encoder[0], x, level, orders)
        above: list[tuple[Tensor, SerializedLevel]] = []
        for pool, stage in zip(self.pools, self.encoder[1:], strict=True):
            above.append((x, level))
            x, level = pool(x, level), level.coarser
            x = _through(stage, x, level, orders)
        for unpool, stage in zip(reversed(self.unpools), reversed(self.decoder), strict=True):
            skip, level = above.pop()
            x = _through(stage, unpool(x, skip, level), level, orders)
        y: Tensor = self.head(self.norm(x))
        return y

    def _orders(self) -> Iterator[Order]:
        """Curves of the blocks, in the order in which these are run."""
        if self.training and self.shuffle_orders:
            return cycle([ORDERS[i] for i in torch.randperm(len(ORDERS)).tolist()])
        return cycle(ORDERS)


class _Block(nn.Module):
    """Depthwise convolution, scans where there are states, perceptron; each on a residual."""

    def __init__(self, dim: int, d_state: int | None, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.conv = DepthwiseSparseConv3d(dim)
        if d_state is None:
            self.mixer = None
        else:
            self.mixer_norm = nn.LayerNorm(dim)
            self.mixer = BiMamba(dim, d_state=d_state, divide_out=True, backward_dt_init="matched")
        self.mlp_norm = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, level: SerializedLevel, order: Order) -> Tensor:
        x = x + self.conv(x, level.grid)
        if self.mixer is not None:
            sequences = level.to_sequences(self.mixer_norm(x), order)
            mixed = self.mixer(sequences, level.lengths)
            x = x + self._drop(level.to_voxels(mixed, order), level)
        return x + self._drop(self.mlp(self.mlp_norm(x)), level)

    def _drop(self, x: Tensor, level: SerializedLevel) -> Tensor:
        """Drops whole samples."""
        if not self.training or self.drop_path.p == 0:
            return x
        kept: Tensor = self.drop_path(x.new_ones(len(level.lengths), 1))
        return x * kept[level.sample]


class _NormAct(nn.Module):
    """Batch norm and GELU; gives float32, so that residuals are added in it."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Point Transformer V3.
        self.norm = nn.BatchNorm1d(dim, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.norm(x).to(wide_type(x)))


class _Pool(nn.Module):
    """The largest of a cell's voxels in each channel, after a linear layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(inputs, outputs)
        self.act = _NormAct(outputs)

    def forward(self, x: Tensor, level: SerializedLevel) -> Tensor:
        x = self.proj(x)
        cells = level.grid.parents.unsqueeze(1).expand_as(x)
        largest = x.new_zeros(len(level.grid.coarser), x.shape[1])
        largest = largest.scatter_reduce(0, cells, x, "amax", include_self=False)
        y: Tensor = self.act(largest)
        return y


class _Unpool(nn.Module):
    """The parent's features beside the encoder's, both projected, added."""

    def __init__(self, deep: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Linear(deep, outputs)
        self.act = _NormAct(outputs)
        self.skip_proj = nn.Linear(skip, outputs)
        self.skip_act = _NormAct(outputs)

    def forward(self, x: Tensor, skip: Tensor, level: SerializedLevel) -> Tensor:
        parent = self.act(self.proj(x))[level.grid.parents]
        y: Tensor = parent + self.skip_act(self.skip_proj(skip))
        return y


def _through(
    stage: nn.Module, x: Tensor, level: SerializedLevel, orders: Iterator[Order]
) -> Tensor:
    for block in stage.children():
        x = block(x, level, next(orders))
    return x


def _check(
    channels: Sequence[int],
    depths: Sequence[int],
    decoder_channels: Sequence[int],
    decoder_depths: Sequence[int],
) -> None:
    sizes = [len(part) for part in (channels, depths, decoder_channels, decoder_depths)]
    levels = sizes[0]
    if levels < 1 or sizes != [levels, levels, levels - 1, levels - 1]:
        raise SuiteError(
            expected="as many depths as channels, one fewer decoder_channels and decoder_depths",
            found=", ".join(map(str, sizes)),
            where="SerializedMambaUNet",
            cure="list a width and a depth for each level, finest first",
        )
