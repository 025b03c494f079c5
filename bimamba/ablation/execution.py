"""Runs a plan: what is finished is skipped, what was cut goes on, what fails holds up nothing."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bimamba.ablation.plan import PlannedRun
from bimamba.ablation.progress import Progress
from bimamba.ablation.state import DONE, Standing, in_use, look
from bimamba.ablation.workers import Presses, Worker, stop

_POLL = 0.25  # seconds
# What `fit` says when another process got hold of the directory first.
_CLAIMED = "another process at work"


class Execution:
    """Works through runs, several at once if asked.

    Args:
        parallel: Processes at once.
        progress: Tells the user.
        after_each: Called when a run has ended.
    """

    def __init__(
        self, parallel: int, progress: Progress, after_each: Callable[[], object] = lambda: None
    ) -> None:
        self.parallel, self.progress, self.after_each = parallel, progress, after_each
        self.interrupted = False
        self._workers: list[Worker] = []
        self._elsewhere: list[PlannedRun] = []

    def run(self, runs: Sequence[PlannedRun]) -> None:
        """Runs all that are not done. Returns early, with its runs stopped, when interrupted.

        Args:
            runs: In the order in which they shall start.
        """
        queue = deque(run for run in runs if look(run).state not in DONE)
        with Presses() as presses, self._none_left_behind():
            while queue or self._workers or self._elsewhere:
                if presses.count:
                    self.interrupted = True
                    self.progress.say("stopping; press again to stop at once")
                    stop(self._workers, lambda: presses.count > 1)
                self._collect()
                if self.interrupted:
                    return
                self._fill(queue)
                self.progress.refresh([worker.run for worker in self._workers])
                time.sleep(_POLL)

    def _collect(self) -> None:
        for worker in list(self._workers):
            status = worker.ended()
            if status is None:
                continue
            self._workers.remove(worker)
            standing = worker.outcome(status, stopped=self.interrupted)
            if _CLAIMED in standing.reason:
                self._elsewhere.append(worker.run)
                continue
            self._conclude(worker.run, standing, time.monotonic() - worker.began)

    def _conclude(self, run: PlannedRun, standing: Standing, seconds: float | None = None) -> None:
        self.progress.ended(run, standing, seconds)
        try:
            self.after_each()
        except Exception as error:  # What fails to be written now will be, or fail, at the end.
            self.progress.say(f"no table yet: {error}")

    def _fill(self, queue: deque[PlannedRun]) -> None:
        """Starts runs in free places; what another process works on is waited for at the end."""
        while queue and len(self._workers) < self.parallel:
            run = queue.popleft()
            if in_use(run.directory):
                self._elsewhere.append(run)
                self.progress.say(f"{run.name} is running in another process; it is waited for")
                continue
            slot = min({*range(self.parallel)} - {worker.slot for worker in self._workers})
            self.progress.started(run, look(run))
            try:
                self._workers.append(Worker.start(run, slot, self.parallel))
            except OSError as error:  # No space for its log, or no more processes.
                self._conclude(run, Standing("failed", str(error)))
        for run in list(self._elsewhere):
            if in_use(run.directory):
                continue
            self._elsewhere.remove(run)
            standing = look(run)
            if standing.state in DONE:
                self._conclude(run, standing)
            else:
                queue.append(run)

    @contextmanager
    def _none_left_behind(self) -> Iterator[None]:
        """An error of our own ends the runs too."""
        try:
            yield
        finally:
            stop(self._workers, lambda: False)
