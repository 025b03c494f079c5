"""A small pool of threads for kernels that release the interpreter's lock.

It belongs to nobody else: OpenMP's own pool aborts in a forked DataLoader worker once the parent
has used it. This one is made anew in every process, is as large as `torch.get_num_threads()` says
at the time of the call (1 in a worker), and serves several callers at once.
"""

import itertools
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue

import torch

# Pieces per thread: more of them even out a busy core, each costs some 15 microseconds.
_PIECES = 2
# Seconds to wait for a thread that ought to have answered long ago.
_PATIENCE = 10


def run_parallel(task: Callable[[int, int], None], count: int) -> None:
    """Calls task(begin, end) on ranges that together cover 0..count, and waits for all.

    Args:
        task: Safe to run on several threads at once for ranges that do not overlap.
        count: Number of equal jobs.

    Raises:
        BaseException: Whatever a task raised first.
    """
    threads = min(torch.get_num_threads(), count)
    if threads < 2:
        if count:
            task(0, count)
        return
    job = _Job(task, count, min(count, _PIECES * threads))
    queue = _pool(threads - 1)
    for _ in range(threads - 1):
        queue.put(job)
    try:
        job.work()
        job.finished.acquire()
    except BaseException:  # Ctrl-C: whoever catches it frees what the pool is writing to.
        job.abandon(threads - 1)
        raise
    if job.error is not None:
        raise job.error


class _Job:
    """A task cut into pieces that whoever is free takes one of."""

    def __init__(self, task: Callable[[int, int], None], count: int, pieces: int) -> None:
        self.task, self.pieces = task, pieces
        self.bounds = [count * i // pieces for i in range(pieces + 1)]
        self.taken, self.done = itertools.count(), itertools.count(1)
        self.error: BaseException | None = None
        self.finished, self.left = threading.Lock(), threading.Semaphore(0)
        self.finished.acquire()

    def work(self) -> None:
        """Takes pieces until none is left; whoever completes the last one says so."""
        # next() of a counter is one step for the interpreter: no piece is taken twice.
        while (i := next(self.taken)) < self.pieces:
            try:
                self.task(self.bounds[i], self.bounds[i + 1])
            except BaseException as error:
                self.error = self.error or error
            if next(self.done) == self.pieces:
                self.finished.release()

    def abandon(self, workers: int) -> None:
        """Takes no further piece and waits until so many threads have left the job."""
        self.pieces = 0
        while workers:
            # Another Ctrl-C must not cut this short. A piece takes milliseconds.
            with suppress(KeyboardInterrupt):
                self.left.acquire(timeout=_PATIENCE)
                workers -= 1


_lock = threading.Lock()
_queue: SimpleQueue[_Job] = SimpleQueue()
_workers: list[threading.Thread] = []


def _pool(size: int) -> "SimpleQueue[_Job]":
    """The queue of a pool with at least so many threads."""
    if len(_workers) < size:
        with _lock:
            while len(_workers) < size:
                worker = threading.Thread(target=_serve, args=(_queue,), daemon=True)
                worker.start()
                _workers.append(worker)
    return _queue


def _serve(queue: "SimpleQueue[_Job]") -> None:
    while True:
        job = queue.get()
        job.work()
        job.left.release()


def _forget() -> None:
    """A forked child has the list of its parent's threads, but none of the threads."""
    global _lock, _queue
    _lock, _queue = threading.Lock(), SimpleQueue()
    _workers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
