"""Voxels as sequences: along the curve, within their sample, and back."""

import torch

from blocks.serialization import ORDERS
from blocks.sparse import voxelize
from lightning_modules.scannet.networks.serialized_levels import SerializedLevel
from tests.lightning_modules.scannet.networks.rooms import room, voxels_of


def test_sequences_hold_each_samples_voxels_once_then_zeros() -> None:
    level = SerializedLevel.finest(voxels_of(room(200), room(90, 1)))
    x = torch.arange(1, len(level.grid) + 1.0)[:, None]
    for order in ORDERS:
        sequences = level.to_sequences(x, order)
        assert sequences.shape == (2, int(level.lengths.max()), 1)
        start = 0
        for sequence, length in zip(sequences, level.lengths.tolist(), strict=True):
            own = x[start : start + length].flatten()
            assert torch.equal(sequence[:length].flatten().sort().values, own)
            assert not sequence[length:].any()
            start += length
        assert torch.equal(level.to_voxels(sequences, order), x)


def test_a_hilbert_sequence_walks_from_neighbour_to_neighbour() -> None:
    cells = torch.cartesian_prod(*[torch.arange(8)] * 3) - 3
    voxels = voxelize(cells + 0.5, cells.float(), torch.zeros(512, dtype=torch.long), 1.0)
    level = SerializedLevel.finest(voxels)
    for _ in range(3):
        side = round(len(level.grid) ** (1 / 3))
        places = (level.grid.coordinates[:, 1:] // level.grid.stride).float()
        for order in ORDERS[2:]:
            steps = level.to_sequences(places, order)[0].diff(dim=0).abs().sum(1)
            assert len(steps) == side**3 - 1
            assert (steps == 1).all()
        level = level.coarser


def test_every_level_and_sample_begins_at_its_own_corner() -> None:
    far = (room(200)[0] + torch.tensor([5.0, -7.0, 1.0]), room(200)[1])
    level = SerializedLevel.finest(voxels_of(far, room(90, 1)))
    while level.grid.stride < 16:
        for sample in (0, 1):
            own = level.grid.coordinates[level.sample == sample, 1:]
            assert own.amin(0).tolist() == [0, 0, 0]
        assert torch.equal(level.lengths, level.sample.bincount())
        assert level.coarser is level.coarser
        level = level.coarser
