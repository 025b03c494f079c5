"""What an ablation shows while it works: one table on a terminal, a line per event elsewhere."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bimamba.ablation.plan import Plan, PlannedRun
from bimamba.ablation.state import DONE, Standing, look
from bimamba.formats import duration, short

_STYLES = {"finished": "green", "running": "cyan", "failed": "red", "diverged": "red"}


class Progress:
    """Variants down, seeds across, and below how long it will take.

    Args:
        plan: What is run.
        parallel: Processes at once.
        console: Where to.
    """

    def __init__(self, plan: Plan, parallel: int, console: Console) -> None:
        self.plan, self.parallel, self.console = plan, parallel, console
        self.standings = {run.name: look(run) for run in plan.runs}
        self._active: set[str] = set()
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays.

        Args:
            text: What to say.
        """
        self.console.print(escape(text), soft_wrap=True)

    def started(self, run: PlannedRun, before: Standing) -> None:
        """A run begins.

        Args:
            run: The run.
            before: Where it stood.
        """
        self._active.add(run.name)
        if not self._live:
            how = {"waiting": "starts", "cut": "goes on", "failed": "tries again"}
            self.say(f"{self._place(run)} {how.get(before.state, 'starts')}")

    def ended(self, run: PlannedRun, standing: Standing, seconds: float | None) -> None:
        """A run has ended, here or in another process.

        Args:
            run: The run.
            standing: What became of it.
            seconds: How long it was at work here.
        """
        self._active.discard(run.name)
        self.standings[run.name] = standing
        if self._live and standing.state == "finished":
            return
        stopped = standing.state in ("waiting", "cut")
        words: list[str] = ["stopped" if stopped else standing.state]
        if standing.files is not None and standing.value is not None:
            words.append(f"{standing.files.monitor} {short(standing.value)}")
        if standing.reason:
            words.append(standing.reason)
        if seconds is not None:
            words.append(duration(seconds))
        self.say(f"{self._place(run)} {', '.join(words)}{self._outlook()}")

    def refresh(self, active: Sequence[PlannedRun]) -> None:
        """Looks at the runs at work and shows them, on a terminal.

        Args:
            active: Runs at work here.
        """
        if self._live:
            for run in active:
                self.standings[run.name] = look(run)
            self._live.update(self._table(), refresh=True)

    def seconds_left(self) -> float | None:
        """An estimate from the runs that have finished, or how far the present ones are."""
        ahead = ("waiting", "running", "cut")
        unfinished = [run for run in self.plan.runs if self._standing(run).state in ahead]
        spent = {run.name: _seconds(self._standing(run)) for run in self.plan.runs}
        typical = [
            spent[run.name]
            for run in self.plan.runs
            if self._standing(run).state == "finished" and spent[run.name]
        ]
        if not typical:
            typical = [
                spent[run.name] * run.epochs / self._standing(run).epochs
                for run in unfinished
                if run.epochs and self._standing(run).epochs
            ]
        if not typical:
            return None
        each = sum(typical) / len(typical)
        return sum(max(each - spent[run.name], 0.0) for run in unfinished) / self.parallel

    def _standing(self, run: PlannedRun) -> Standing:
        return self.standings[run.name]

    def _place(self, run: PlannedRun) -> str:
        return f"[{self.plan.runs.index(run) + 1}/{len(self.plan.runs)}] {run.name}"

    def _outlook(self) -> str:
        left = self.seconds_left()
        return f"; about {duration(left)} left" if left else ""

    def _table(self) -> Group:
        seeds = self.plan.ablation.seeds
        table = Table(title=f"{self.plan.ablation.experiment}", title_justify="left")
        table.add_column("variant")
        for seed in seeds:
            table.add_column(f"seed {seed}")
        for group in self.plan.params:
            runs = {run.seed: run for run in self.plan.group(group)}
            table.add_row(group, *(self._cell(runs[seed]) for seed in seeds))
        states = [standing.state for standing in self.standings.values()]
        done = f"{sum(state in DONE for state in states)}/{len(states)} done{self._outlook()}"
        return Group(table, Text(done))

    def _cell(self, run: PlannedRun) -> Text:
        standing = self._standing(run)
        state = "running" if run.name in self._active else standing.state
        words: list[str] = [state] if state != "finished" else []
        if state in ("running", "cut"):
            words.append(f"epoch {standing.epochs}" + (f"/{run.epochs}" if run.epochs else ""))
        if standing.value is not None and standing.files is not None:
            words.append(f"{standing.files.monitor} {short(standing.value)}")
        return Text(" ".join(words), style=_STYLES.get(state, "dim"))


def _seconds(standing: Standing) -> float:
    return (standing.files.number("seconds") or 0.0) if standing.files else 0.0
