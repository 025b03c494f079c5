"""A data set's own epochs one after another, in joint epochs of a given number of draws.

So that data sets of different sizes can train together: in a joint epoch the small one is gone
through several times, each time in a new order, or the large one in part; nothing is left out.
"""

from collections.abc import Iterator
from itertools import islice

from torch.utils.data.distributed import DistributedSampler

from datamodules.sampling import Draw


class JointSampler(DistributedSampler[Draw]):
    """Draws of this process, `draws` of them in each joint epoch. Lightning calls `set_epoch`.

    Args:
        inner: Order of the data set's own epochs, for this process.
        batch_size: Samples per step; own epochs are cut to a multiple of it, as batches of one
            identity after another ask for.
        steps: Steps of a joint epoch.
    """

    def __init__(self, inner: DistributedSampler[Draw], batch_size: int, steps: int) -> None:
        super().__init__(range(1), num_replicas=1, rank=0, shuffle=False)  # type: ignore[arg-type]
        self.inner, self.batch_size, self.steps = inner, batch_size, steps
        self.own_epoch = len(inner) // batch_size * batch_size
        self.num_samples = self.total_size = steps * batch_size
        self._resumed_epoch, self._seen = -1, 0

    def resume(self, epoch: int, steps: int) -> None:
        """Leaves out the first steps of one joint epoch, as often as it is iterated."""
        self._resumed_epoch, self._seen = epoch, steps * self.batch_size
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        start = self._seen if self.epoch == self._resumed_epoch else 0
        first = self.epoch * self.num_samples
        position, end = first + start, first + self.num_samples
        while position < end:
            own_epoch, offset = divmod(position, self.own_epoch)
            self.inner.set_epoch(own_epoch)
            stop = min(self.own_epoch, offset + end - position)
            # Own epochs end by the cut, not by the iterator: what is behind it is left alone.
            yield from islice(iter(self.inner), offset, stop)
            position += stop - offset
