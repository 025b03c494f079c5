"""Training batches of P identities with K images each: the order for triplet losses.

An epoch is one global order, as in `datamodules.sampling`: a batch of all processes together is an
array (V, P, K) of views, identities and instances. Process r of w takes identities r, r + w, ... of
it, so each has complete identities, and one process with twice the batch sees the same samples as
two. `V` is 1 but for cross-view sets, whose batches are [view A; view B] with the same identities.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from datamodules.sampling import Draw, TrainSampler

Indices = npt.NDArray[np.int64]


class IdentitySampler(TrainSampler):
    """Base: turns global batches into the draws of one process.

    Args:
        identities: Identity of each image, shape (N,).
        batch_size: Images per process and step, a multiple of `instances` times `views`.
        instances: Images of each identity and view in a batch.
        views: Parts of a batch.
        seed: Seed of the run.
        rank: This process.
        world: Number of processes.

    Raises:
        SuiteError: The batch has no whole identities, or more than there are.
    """

    def __init__(
        self,
        identities: Indices,
        *,
        batch_size: int,
        instances: int,
        views: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        super().__init__(len(identities), seed=seed, rank=rank, world=world)
        share = instances * views
        if batch_size % share or batch_size < share:
            per = f"{instances} images of each identity" + (f" in {views} views" * (views > 1))
            raise SuiteError(
                expected=f"a batch_size that divides by {share}: {per}",
                found=f"batch_size {batch_size}",
                where="data.init_args.batch_size",
                cure=f"set it to {max(round(batch_size / share), 1) * share}, or change "
                "data.init_args.instances",
            )
        self.identities = identities
        self.instances = instances
        self.shape = (views, batch_size // share * world, instances)
        self.batch_size = batch_size

    def check_identities(self, count: int) -> None:
        """Refuses a batch of more identities than there are.

        Args:
            count: Identities that can be drawn.
        """
        wanted = self.shape[1]
        if wanted > count:
            share = self.shape[0] * self.instances
            per_process = count // self.num_replicas * share
            cure = "train on fewer devices, or add identities"
            if per_process:
                cure = f"set data.init_args.batch_size to {per_process} or less, or add identities"
            raise SuiteError(
                expected=f"at least {wanted} identities for a batch: {self.batch_size} images on "
                f"each of {self.num_replicas} processes, {share} of each identity",
                found=f"{count} identities to train on",
                where="data.init_args.batch_size",
                cure=cure,
            )

    def set_batches(self, count: int) -> None:
        """Fixes the number of batches of every epoch.

        Args:
            count: Batches.
        """
        self.num_batches = count
        self.num_samples = count * self.batch_size
        self.total_size = self.num_samples * self.num_replicas

    def global_batches(self, random: np.random.Generator) -> Iterator[Indices]:
        """Batches of one epoch, all processes together: `num_batches` arrays (V, P, K)."""
        raise TypeError(f"{type(self).__name__} must define global_batches(random)")

    def __iter__(self) -> Iterator[Draw]:
        size = int(np.prod(self.shape))
        start = self._seen if self.epoch == self._resumed_epoch else 0
        first = -(-start // size)  # A batch of another size than before is not cut.
        places = np.arange(size).reshape(self.shape)[:, self.rank :: self.num_replicas].ravel()
        random = np.random.default_rng([self.seed, self.epoch])
        for number, batch in enumerate(self.global_batches(random)):
            if number < first:
                continue
            own = batch[:, self.rank :: self.num_replicas].ravel()
            for place, index in zip(places.tolist(), own.tolist(), strict=True):
                yield Draw(self.epoch, number * size + place, index)


class PKSampler(IdentitySampler):
    """P identities drawn at random for each batch, K images of each.

    Every identity's shuffled images are cut to chunks of K; an identity with fewer has one chunk,
    drawn with replacement, and a remainder waits for another epoch. A batch pops one chunk of each
    of P random identities (KaiyangZhou/deep-person-reid, TransReID). Upstream's epoch ends by
    chance, when fewer than P identities are left. Here identities that would otherwise be left over
    are drawn in time, so that every epoch has the largest possible number of batches, the same one.

    Args:
        identities: Identity of each image, shape (N,).
        cameras: Camera of each image, shape (N,): chunks then mix cameras as far as they can (the
            aim of fast-reid's balanced sampler). Without them, images are chunked as shuffled.
        batch_size: Images per process and step, a multiple of `instances`.
        instances: Images of each identity in a batch, K.
        seed: Seed of the run.
        rank: This process.
        world: Number of processes.

    Raises:
        SuiteError: The batch has no whole identities, or more than there are.
    """

    def __init__(
        self, identities: Indices, *, cameras: Indices | None = None, **options: Any
    ) -> None:
        super().__init__(identities, **options)
        self.cameras = cameras
        self.members = members_of(identities)
        self.check_identities(len(self.members))
        chunks = np.array([max(len(m) // self.instances, 1) for m in self.members])
        self.set_batches(most_batches(chunks, self.shape[1]))

    def global_batches(self, random: np.random.Generator) -> Iterator[Indices]:
        """Batches of one epoch, all processes together: arrays (1, P, K)."""
        chunks = [self._chunks(indices, random) for indices in self.members]
        left = np.array([len(own) for own in chunks])
        for remaining in range(self.num_batches, 0, -1):
            drawn = draw_identities(left, remaining, self.shape[1], random)
            left[drawn] -= 1
            yield np.stack([chunks[i][left[i]] for i in drawn])[None]

    def _chunks(self, indices: Indices, random: np.random.Generator) -> Indices:
        """An identity's images in chunks, shape (chunks, K)."""
        size = self.instances
        if len(indices) < size:
            if self.cameras is None:
                return random.choice(indices, (1, size))
            return np.resize(random.permutation(indices), (1, size))  # Every image and camera.
        count = len(indices) // size
        kept = random.permutation(indices)[: count * size]
        if self.cameras is None:
            return kept.reshape(count, size)
        # Dealt out camera by camera, as cards are: each chunk gets its share of every camera.
        return kept[np.argsort(self.cameras[kept], kind="stable")].reshape(size, count).T


class ViewSampler(IdentitySampler):
    """Batches [view A; view B; ...] that hold the same identities in the same order.

    An epoch shows every identity once, K images of it in each view, drawn without replacement
    where there are enough (Dmmm1997/FSRA). Identities that lack a view are left out.

    Args:
        identities: Identity of each image, shape (N,).
        views: View of each image, shape (N,), counted from 0.
        batch_size: Images per process and step, a multiple of `instances` times the views.
        instances: Images of each identity and view in a batch, K.
        seed: Seed of the run.
        rank: This process.
        world: Number of processes.

    Raises:
        SuiteError: The batch has no whole identities, or more than there are.
    """

    def __init__(self, identities: Indices, views: Indices, **options: Any) -> None:
        present = np.unique(views).tolist()
        super().__init__(identities, views=len(present), **options)
        by_view = [
            dict(zip(np.unique(identities[own]).tolist(), members_of(identities, own), strict=True))
            for own in (np.flatnonzero(views == view) for view in present)
        ]
        self.complete = sorted(set.intersection(*(set(members) for members in by_view)))
        self.members = [[members[i] for i in self.complete] for members in by_view]
        self.check_identities(len(self.complete))
        self.set_batches(len(self.complete) // self.shape[1])

    def global_batches(self, random: np.random.Generator) -> Iterator[Indices]:
        """Batches of one epoch, all processes together: arrays (V, P, K)."""
        order = random.permutation(len(self.complete))
        for own in order[: self.num_batches * self.shape[1]].reshape(-1, self.shape[1]):
            yield np.stack(
                [[self._pick(members[i], random) for i in own] for members in self.members]
            )

    def _pick(self, indices: Indices, random: np.random.Generator) -> Indices:
        replace = len(indices) < self.instances
        return random.choice(indices, self.instances, replace=replace)


def members_of(identities: Indices, among: Indices | None = None) -> list[Indices]:
    """Indices of each identity's images, identities sorted.

    Args:
        identities: Identity of each image, shape (N,).
        among: Only these images; null for all.
    """
    among = np.arange(len(identities)) if among is None else among
    own = identities[among]
    order = np.argsort(own, kind="stable")
    starts = np.flatnonzero(np.diff(own[order])) + 1
    return np.split(among[order], starts) if len(among) else []


def most_batches(chunks: Indices, identities: int) -> int:
    """The most batches of distinct identities that chunks can fill.

    An identity can be in a batch once: b batches are possible if and only if the identities, each
    counted min(chunks, b) times, fill b * P places.

    Args:
        chunks: Chunks of each identity.
        identities: Identities in a batch, P.
    """
    low, high = 0, int(chunks.sum()) // identities
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(chunks, middle).sum() >= middle * identities:
            low = middle
        else:
            high = middle - 1
    return low


def draw_identities(
    left: Indices, remaining: int, identities: int, random: np.random.Generator
) -> Indices:
    """Identities of the next batch, at random but so that the remaining batches can be filled.

    An identity with as many chunks as there are batches left is wanted by all of them. How many
    such may miss this batch is what the chunks exceed the places by; the others must be in it.

    Args:
        left: Chunks left of each identity.
        remaining: Batches left, this one included; at most `most_batches(left, identities)`.
        identities: Identities in a batch, P.
        random: Where chance comes from.
    """
    pressing = np.flatnonzero(left >= remaining)
    spare = int(np.minimum(left, remaining).sum()) - remaining * identities
    due = random.permutation(pressing)[: max(len(pressing) - spare, 0)]
    free = np.setdiff1d(np.flatnonzero(left), due, assume_unique=True)
    others = random.choice(free, identities - len(due), replace=False)
    return random.permutation(np.concatenate([due, others]))
