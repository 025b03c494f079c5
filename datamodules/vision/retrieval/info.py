"""What a retrieval module may know about its images."""

from dataclasses import dataclass

from datamodules.info import DataInfo


@dataclass(frozen=True)
class RetrievalInfo(DataInfo):
    """Facts about a retrieval set. `protocol` is `cmc_camera` or `trapezoid`.

    Args:
        layout: How the files lie.
        num_identities: Identities trained on, labelled 0 to this; null where there are no training
            images.
        num_cameras: One more than the largest camera of any split.
        views: Names of view 0, 1, ...
        direction: From which view to which, in a cross-view set.
        instances: Images of an identity, and of a view, in a training batch.
        img_size: (height, width) of a batch's images in pixels.
        mean: Channel means that were subtracted, in units of [0, 1].
        std: Channel deviations that were divided by, same units.
        num_train: Training images.
        num_query: Queries.
        num_gallery: Gallery images.
    """

    layout: str
    num_identities: int | None
    num_cameras: int
    views: tuple[str, ...]
    direction: str | None
    instances: int
    img_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_train: int
    num_query: int
    num_gallery: int
