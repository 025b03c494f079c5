"""Images to be found again: persons, buildings or your own, in six on-disk layouts."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from datamodules.info import digest
from datamodules.inspection import Progress, Remark, remark_of
from datamodules.resumable import ResumableDataModule
from datamodules.sampling import TrainSampler, global_seed
from datamodules.vision.retrieval.augment import (
    HALF,
    OnView,
    RetrievalAugment,
    retrieval_eval_transform,
    retrieval_train_transform,
)
from datamodules.vision.retrieval.checks import refuse, remarks_on, remarks_on_files
from datamodules.vision.retrieval.detection import RetrievalLayoutName, read_listing
from datamodules.vision.retrieval.embedded import generate_buildings, generate_persons
from datamodules.vision.retrieval.facts import facts_of
from datamodules.vision.retrieval.info import RetrievalInfo
from datamodules.vision.retrieval.records import (
    GALLERY,
    QUERY,
    Direction,
    Listing,
    RecordReader,
    View,
    Wanted,
    raise_it,
    relabel,
)
from datamodules.vision.retrieval.samplers import PKSampler, ViewSampler

Batch = dict[str, Any]

_TRANSREID_RECIPE = RetrievalAugment()


class RetrievalDataModule(ResumableDataModule[RetrievalInfo]):
    """Images with identities, for re-identification and geo-localisation.

    A batch, in all stages:

    | key      | type      | shape        | meaning                                             |
    |----------|-----------|--------------|-----------------------------------------------------|
    | image    | float32   | (B, 3, H, W) | RGB, minus mean, divided by std                     |
    | identity | int64     | (B,)         | training: 0..P-1; evaluation: the number on disk    |
    | camera   | int64     | (B,)         | camera, from 0; the view in a cross-view set        |
    | view     | int64     | (B,)         | place among `info.views`                            |
    | index    | int64     | (B,)         | place among training images, or queries and gallery |
    | path     | list[str] | B            | file                                                |
    | role     | int64     | (B,)         | evaluation only: 0 query, 1 gallery                 |

    Evaluation is one loader: the queries, then the gallery, each image once on any number of
    processes. A batch may hold both; `index` puts gathered features back in order. Training batches
    hold P identities with `instances` images each; in a cross-view set they are [view A; view B]
    with the same identities in the same order. `validate` and `test` see the same images, as the
    field does.

    Args:
        root: Folder of the data set, or file of a table; null for the embedded one (procedural
            persons before four cameras; with layout university1652 procedural buildings).
        layout: How the files lie, or look.
        direction: Views of queries and gallery in a cross-view set.
        train_views: Views that a cross-view set is trained on, in the order of a batch's parts.
        camera_pattern: Regular expression whose first group is the camera in a file's name, in the
            layout `folders`; null where cameras are unknown: then no match is removed.
        join_val: Train on MSMT17's validation images too, as TransReID does.
        img_size: [height, width], or side, of the network's input in pixels.
        batch_size: Training images per process and step, a multiple of `instances` (times the
            views).
        instances: Images of each identity in a batch, K; of each identity and view in a cross-view
            set.
        sampler: Training order: `pk`; `balanced`, whose instances are of other cameras where
            possible; `views`, cross-view pairs; `shuffle`, every image once, for training without
            triplets; or `auto`: `views` if there are several, else `pk`.
        val_batch_size: Evaluation images per process and step; null for `batch_size`.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        augment: Augmentation of training images.
        mean: Channel means to subtract, in units of [0, 1].
        std: Channel deviations to divide by, same units.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    def __init__(
        self,
        root: str | None = None,
        layout: Literal["auto"] | RetrievalLayoutName = "auto",
        direction: Direction = "drone_to_satellite",
        train_views: tuple[View, ...] = ("satellite", "drone"),
        camera_pattern: str | None = None,
        join_val: bool = False,
        img_size: int | tuple[int, int] = (256, 128),
        batch_size: int = 64,
        instances: int = 4,
        sampler: Literal["auto", "pk", "balanced", "views", "shuffle"] = "auto",
        val_batch_size: int | None = None,
        num_workers: int = 4,
        augment: RetrievalAugment = _TRANSREID_RECIPE,
        mean: tuple[float, float, float] = HALF,
        std: tuple[float, float, float] = HALF,
        pin_memory: bool = True,
    ) -> None:
        super().__init__(num_workers, pin_memory)
        self.root = root
        self.layout: Literal["auto"] | RetrievalLayoutName = layout
        self.direction = direction
        self.train_views = tuple(train_views)
        self.camera_pattern = camera_pattern
        self.join_val = join_val
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.img_size = (height, width)
        self.batch_size = batch_size
        self.instances = instances
        self.sampler = sampler
        self.val_batch_size = val_batch_size or batch_size
        self.augment = augment
        self.mean = mean
        self.std = std

    def prepare_data(self) -> None:
        """Writes the embedded set into the cache when it is asked for."""
        if self.root is None:
            self._home()

    def setup(self, stage: str) -> None:
        """Lists the files.

        Args:
            stage: `fit`, `validate`, `test` or `predict`.

        Raises:
            SuiteError: The files follow no layout, a split is empty, or no query has a match.
        """
        listing = read_listing(self._wanted(), self.layout)
        refuse(listing, train=stage == "fit")
        train = listing.of("train")
        labels = relabel(record.identity for record in train)
        self._train = RecordReader(train, [labels[record.identity] for record in train])
        shown = listing.of("query") + listing.of("gallery")
        self._eval = RecordReader(
            shown,
            [record.identity for record in shown],
            [QUERY if record.split == "query" else GALLERY for record in shown],
        )
        self._listing = listing
        self._info = self._describe(listing, len(labels))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Augmented batches of P identities with K images each."""
        sampler = self.resumed(self._order(), self.batch_size)
        transform = OnView(
            tuple(
                retrieval_train_transform(self.augment, self.img_size, self.mean, self.std, view)
                for view in self.info.views
            )
        )
        return self._loader(self._train, transform, sampler, self.batch_size, drop_last=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every query, then every gallery image, once."""
        transform = retrieval_eval_transform(
            self.img_size, self.mean, self.std, self.augment.interpolation
        )
        steps = OnView((transform,) * len(self.info.views))
        return self._eval_loader(self._eval, steps, self.val_batch_size, "images")

    def describe(self) -> Mapping[str, str | int | float]:
        """Facts in the order in which they should be read."""
        return facts_of(read_listing(self._wanted(), self.layout))

    def validate(self, sample: int | None = None) -> Iterator[Remark | Progress]:
        """Yields what is wrong with the lists, then with the files.

        Args:
            sample: How many images to read at most, drawn evenly; null for all.
        """
        heard: list[SuiteError] = []
        try:
            listing = read_listing(self._wanted(heard.append), self.layout)
        except SuiteError as error:
            yield remark_of(error)
            return
        yield from map(remark_of, heard)
        yield from remarks_on(listing, self.instances)
        yield from remarks_on_files(listing, sample)

    def _wanted(self, complain: Callable[[SuiteError], None] = raise_it) -> Wanted:
        return Wanted(
            root=self._home(),
            direction=self.direction,
            train_views=self.train_views,
            camera_pattern=self.camera_pattern,
            join_val=self.join_val,
            complain=complain,
        )

    def _home(self) -> Path:
        """The folder to read, generated if there is none."""
        if self.root is not None:
            return Path(self.root).absolute()
        if self.layout == "university1652":
            return generate_buildings()
        if self.layout in ("auto", "market1501"):
            return generate_persons()
        raise SuiteError(
            expected="a data set",
            found=f"no root, and no embedded set in the layout {self.layout}",
            where="data.init_args.root",
            cure="name the folder of the data, or take the layout market1501 or university1652",
        )

    def _order(self) -> TrainSampler:
        """The training order of this process."""
        rank, world = self._place()
        place: dict[str, Any] = {"seed": global_seed(), "rank": rank, "world": world}
        identities, columns = self._train.identities, self._train.columns
        several = len(np.unique(columns["view"])) > 1
        name = self.sampler if self.sampler != "auto" else ("views" if several else "pk")
        if name == "shuffle":
            if len(identities) < self.batch_size * world:
                raise SuiteError(
                    expected=f"at least {self.batch_size * world} training images for a batch",
                    found=f"{len(identities)}",
                    where=self.info.root,
                    cure="lower data.init_args.batch_size",
                )
            return TrainSampler(len(identities), **place)
        place |= {"batch_size": self.batch_size, "instances": self.instances}
        if name == "views":
            return ViewSampler(identities, columns["view"], **place)
        cameras = columns["camera"] if name == "balanced" else None
        return PKSampler(identities, cameras=cameras, **place)

    def _describe(self, listing: Listing, identities: int) -> RetrievalInfo:
        home = listing.home
        lines = (
            f"{r.split} {r.identity} {r.camera} {r.view} {_below(r.path, home)}"
            for r in listing.records
        )
        return RetrievalInfo(
            batch_size=self.batch_size,
            protocol=listing.protocol,
            root=str(home),
            synthetic=self.root is None,
            hash=digest(lines),
            layout=listing.layout,
            num_identities=identities or None,
            num_cameras=max(record.camera for record in listing.records) + 1,
            views=listing.views,
            direction=listing.direction,
            instances=self.instances,
            img_size=self.img_size,
            mean=self.mean,
            std=self.std,
            num_train=len(self._train),
            num_query=len(listing.of("query")),
            num_gallery=len(listing.of("gallery")),
        )


def _below(path: str, home: Path) -> str:
    """A file's name within the data set; a table may list files that lie elsewhere."""
    own = Path(path)
    return own.relative_to(home).as_posix() if own.is_relative_to(home) else path
