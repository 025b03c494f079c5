"""Neighbours by hashing against all distances, on the awkward clouds."""

import pytest
import torch

from lightning_modules.scannet.networks import neighbours
from lightning_modules.scannet.networks.fusion_gates import normals
from lightning_modules.scannet.networks.neighbours import nearest_within


@pytest.mark.parametrize("pairs", [2**22, 50])
@pytest.mark.parametrize("own", [True, False])
def test_neighbours_equal_those_of_all_distances(
    own: bool, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "_PAIRS", pairs)
    g = torch.Generator().manual_seed(0)
    xyz, sample = torch.rand(150, 3, generator=g) * 2 - 1, torch.arange(150) % 2
    queries, of = (xyz, sample) if own else (torch.rand(40, 3, generator=g) * 3 - 1, sample[:40])
    given = () if own else (queries, of)
    indices, distances = nearest_within(xyz, sample, 5, 0.3, *given)
    table = torch.cdist(queries.double(), xyz.double()).float()
    table[of[:, None] != sample] = torch.inf
    table[table > 0.3] = torch.inf
    expected = table.topk(5, largest=False)
    torch.testing.assert_close(distances, expected.values, atol=1e-6, rtol=1e-5)
    there = distances.isfinite()
    assert torch.equal(indices[there], expected.indices[there]) and not indices[~there].any()


def test_one_point_and_equal_points() -> None:
    indices, distances = nearest_within(torch.zeros(1, 3), torch.zeros(1).long(), 3, 0.1)
    assert indices.tolist() == [[0, 0, 0]] and distances.tolist() == [[0, torch.inf, torch.inf]]
    _, distances = nearest_within(torch.ones(6, 3), torch.zeros(6).long(), 4, 0.1)
    assert (distances == 0).all()


def test_normals_stand_on_their_plane_and_face_the_camera() -> None:
    g = torch.Generator().manual_seed(0)
    flat = torch.cat((torch.rand(200, 2, generator=g), torch.zeros(200, 1)), 1)
    indices, distances = nearest_within(flat, torch.zeros(200).long(), 8, 0.3)
    for height in (2.0, -2.0):
        eye = torch.tensor([0.0, 0, height]).expand(200, 3)
        found = normals(flat, indices, distances.isfinite().unsqueeze(-1), eye)
        expected = torch.tensor([0, 0, height / 2]).expand(200, 3)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
