"""From points to instance masks: voxels, backbone, perhaps the image, superpoints, decoder.

The single-view system of xuxw98/ESAM, itself filaPro/oneformer3d; keys of the parts are theirs
(`backbone.`, `pool.`, `decoder.`).

Shapes: B samples, P points and S superpoints of all of them, C width of the features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from blocks import Recorded
from blocks.errors import SuiteError
from blocks.sparse import voxelize
from lightning_modules.scannet.networks.bifusion import BiFusion, Fused, View
from lightning_modules.scannet.networks.query_decoder import Decoded, DecoderInput, QueryDecoder
from lightning_modules.scannet.networks.superpoint_pooling import GeoAwarePooling


@dataclass(frozen=True)
class Segmented:
    """What the segmenter says.

    Args:
        decoded: Outputs of the decoder: per sample, per depth.
        fused: Both branches, where there is an image.
    """

    decoded: list[list[Decoded]]
    fused: Fused | None


class InstanceSegmenter(Recorded, nn.Module):
    """Segments point clouds into instances.

    Args:
        backbone: From voxels to features of each, e.g. `Res16UNet34C` or `SerializedMambaUNet`.
        decoder: From superpoints to instances, e.g. `QueryDecoder`.
        fusion: Joins features of the image to those of the points, e.g. `BiFusion`; `null` for
            points alone.
        voxel_size: Side of a voxel in metres.
        inputs: What the backbone reads of a voxel: `color`, or `occupancy`: ones, so that it sees
            the shape alone. Where the data withholds colours these are zeros, of which a
            convolution makes zeros again, and it would see nothing.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decoder: nn.Module,
        fusion: nn.Module | None = None,
        voxel_size: float = 0.02,
        inputs: Literal["color", "occupancy"] = "color",
    ) -> None:
        super().__init__()
        if not isinstance(decoder, QueryDecoder):
            raise _mismatch("decoder", "a QueryDecoder", type(decoder).__name__)
        if fusion is not None and not isinstance(fusion, BiFusion):
            raise _mismatch("fusion", "a BiFusion", type(fusion).__name__)
        width = int(getattr(backbone, "out_channels"))  # noqa: B009
        if fusion is not None and fusion.in_channels != width:
            raise _mismatch("fusion.in_channels", str(width), str(fusion.in_channels))
        channels = width if fusion is None else fusion.channels
        if decoder.in_channels != channels:
            raise _mismatch("decoder.in_channels", str(channels), str(decoder.in_channels))
        self.voxel_size, self.inputs = voxel_size, inputs
        self.backbone, self.decoder, self.fusion = backbone, decoder, fusion
        self.pool = GeoAwarePooling(channels)

    def forward(
        self,
        xyz: Tensor,
        color: Tensor,
        sample: Tensor,
        superpoint: Tensor,
        view: View | None = None,
        queries: Sequence[Tensor | None] | None = None,
    ) -> Segmented:
        """Segments a batch.

        Args:
            xyz: Places in metres, augmented in training, (P, 3).
            color: Normalised, (P, 3).
            sample: Sample of each point, ascending, (P,).
            superpoint: Numbered through the batch without gaps, (P,).
            view: The images; needed with `fusion`.
            queries: Superpoints of each sample that become queries, counted from its first; all of
                them if left out.
        """
        features = color if self.inputs == "color" else torch.ones_like(color)
        voxels = voxelize(xyz, features, sample, self.voxel_size)
        x = voxels.to_points(self.backbone(voxels))
        fused = None
        if self.fusion is not None:
            if view is None:
                raise SuiteError(
                    expected="frames with images, for the network fuses them",
                    found="points alone",
                    where="data",
                    cure="set data.init_args.image: true, or model.init_args.network.init_args."
                    "fusion: null",
                )
            fused = self.fusion(x, view, sample, superpoint)
            x = fused.features
        counts = points_and_superpoints(sample, superpoint)
        total = sum(superpoints for _, superpoints in counts)
        pooled, weight = self.pool(x, xyz, superpoint, total)
        decoded, p, s = [], 0, 0
        for i, (points, superpoints) in enumerate(counts):
            here = slice(p, p + points)
            one = DecoderInput(
                pooled[s : s + superpoints], x[here], xyz[here], superpoint[here] - s, weight[here]
            )
            decoded.append(self.decoder(one, None if queries is None else queries[i]))
            p, s = p + points, s + superpoints
        return Segmented(decoded, fused)


def points_and_superpoints(sample: Tensor, superpoint: Tensor) -> list[tuple[int, int]]:
    """Points and superpoints of every sample of a batch."""
    points = torch.bincount(sample)
    last = superpoint.new_zeros(len(points)).scatter_reduce(0, sample, superpoint, "amax")
    superpoints = (last + 1).diff(prepend=last.new_zeros(1))
    return list(zip(points.tolist(), superpoints.tolist(), strict=True))


def _mismatch(argument: str, expected: str, found: str) -> SuiteError:
    return SuiteError(
        expected=f"{argument} {expected}",
        found=found,
        where=f"model.init_args.network.init_args.{argument}",
        cure="correct it; widths follow from the part before",
    )
