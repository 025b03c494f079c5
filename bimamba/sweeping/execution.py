"""Works through the trials of a study: what was cut goes on, what is hopeless is given up early."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bimamba.ablation.plan import PlannedRun
from bimamba.ablation.state import DONE, look
from bimamba.ablation.workers import Presses, Worker, stop
from bimamba.run_files import RunFiles, read_run
from bimamba.sweeping.plan import SweepPlan
from bimamba.sweeping.progress import SweepProgress
from bimamba.sweeping.study import Ending, Study, Ticket
from blocks.errors import SuiteError

_POLL = 0.5  # seconds
# A run that is given up gets this long to end by itself.
_PATIENCE = 20.0


@dataclass
class Active:
    """A trial at work here.

    Args:
        ticket: The right to it.
        runs: One for each seed.
        slot: Its place among those at once.
        worker: The run at work.
        values: Of the seeds that have finished.
        given_up: When it was asked to stop, in seconds of the monotonic clock.
    """

    ticket: Ticket
    runs: list[PlannedRun]
    slot: int
    worker: Worker
    values: list[float] = field(default_factory=list)
    given_up: float | None = None


class SweepExecution:
    """Makes trials until the study has enough of them.

    Args:
        plan: What every trial starts from.
        study: What has been tried.
        progress: Tells the user.
        after_each: Called when a trial has ended.
    """

    def __init__(
        self,
        plan: SweepPlan,
        study: Study,
        progress: SweepProgress,
        after_each: Callable[[], object] = lambda: None,
    ) -> None:
        self.plan, self.study, self.progress = plan, study, progress
        self.after_each = after_each
        self.interrupted = False
        self._active: list[Active] = []

    def run(self) -> None:
        """Returns when nothing is left to start; early, with its runs stopped, when interrupted."""
        parallel = self.plan.sweep.parallel
        with Presses() as presses:
            try:
                more = True
                while more or self._active:
                    if presses.count:
                        self.interrupted = True
                        self.progress.say("stopping; press again to stop at once")
                        stop([a.worker for a in self._active], lambda: presses.count > 1)
                        return
                    for active in list(self._active):
                        self._look_at(active)
                    more = len(self._active) >= parallel or self._start()
                    self.progress.refresh([a.ticket.number for a in self._active])
                    time.sleep(_POLL)
            finally:
                stop([a.worker for a in self._active], lambda: False)
                for active in self._active:
                    self.study.give_back(active.ticket)

    def _start(self) -> bool:
        """Starts or takes up a trial; whether there was one."""
        ticket = self.study.next()
        if ticket is None:
            return False
        try:
            runs = self.plan.runs(ticket.number, ticket.params)
        except SuiteError as error:
            self._end(ticket, "failed", None, " ".join(str(error).split()))
            return True
        slots = {*range(self.plan.sweep.parallel)} - {a.slot for a in self._active}
        self.progress.started(ticket.number, ticket.params)
        self._next_run(ticket, runs, min(slots), [])
        return True

    def _next_run(
        self, ticket: Ticket, runs: list[PlannedRun], slot: int, values: list[float]
    ) -> None:
        """The next seed of a trial, or its end. Runs that an earlier process finished count."""
        while len(values) < len(runs):
            run = runs[len(values)]
            standing = look(run, whole=True)
            if standing.state not in DONE:
                worker = Worker.start(run, slot, self.plan.sweep.parallel)
                self._active.append(Active(ticket, runs, slot, worker, values))
                return
            value = self._value(standing.files)
            if standing.state == "diverged" or value is None:
                self._end(ticket, "failed", None, standing.reason or self._unlogged(standing.files))
                return
            values.append(value)
        self._end(ticket, "complete", sum(values) / len(values))

    def _look_at(self, active: Active) -> None:
        worker, first = active.worker, not active.values
        status = worker.ended()
        if first and active.given_up is None:
            curve = [v for v in self._curve(worker.run) if v == v]
            if self.study.report(active.ticket, curve) and status is None:
                active.given_up = time.monotonic()
                worker.interrupt()
        if status is None:
            if active.given_up and time.monotonic() - active.given_up > _PATIENCE:
                stop([worker], lambda: True)
            return
        self._active.remove(active)
        stopped = active.given_up is not None
        standing = worker.outcome(status, stopped=stopped)
        if standing.state == "finished":
            self._next_run(active.ticket, active.runs, active.slot, active.values)
        elif stopped:
            self._end(active.ticket, "pruned", None)
        else:
            self._end(active.ticket, "failed", None, standing.reason or standing.state)

    def _end(self, ticket: Ticket, ending: Ending, value: float | None, reason: str = "") -> None:
        self.study.tell(ticket, ending, value, reason)
        self.progress.ended(ticket.number, ending, value, reason)
        try:
            self.after_each()
        except Exception as error:  # What fails to be written now will be, or fail, at the end.
            self.progress.say(f"no table yet: {error}")

    def _curve(self, run: PlannedRun) -> list[float]:
        try:
            files = read_run(run.directory)
        except SuiteError:  # It has written nothing yet.
            return []
        return [point.value for point in files.curves.get(self.plan.metric, ())]

    def _value(self, files: RunFiles | None) -> float | None:
        """The best value of the metric."""
        if files is None:
            return None
        if files.monitor == self.plan.metric:
            return files.metrics("best").get(self.plan.metric)
        values = [point.value for point in files.curves.get(self.plan.metric, ())]
        best = min if self.plan.mode == "min" else max
        return best((v for v in values if v == v), default=None)

    def _unlogged(self, files: RunFiles | None) -> str:
        logged = sorted(files.curves) if files else []
        return f"it logs no {self.plan.metric}, but {', '.join(logged)}"
