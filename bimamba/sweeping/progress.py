"""What a sweep shows while it works: one table on a terminal, a line per event elsewhere."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from bimamba.formats import short
from bimamba.sweeping.plan import SweepPlan
from bimamba.sweeping.results import ENDINGS, ranked
from bimamba.sweeping.space import short_names, text_of
from bimamba.sweeping.study import Ending, Study

_SHOWN = 10
_STYLES = {"complete": "green", "pruned": "yellow", "failed": "red", "running": "cyan"}


class SweepProgress:
    """The best trials, those at work, and how many there are to come.

    Args:
        plan: What every trial starts from.
        study: What has been tried.
        console: Where to.
    """

    def __init__(self, plan: SweepPlan, study: Study, console: Console) -> None:
        self.plan, self.study, self.console = plan, study, console
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
            self._live.update(self._table(()), refresh=True)
            self._live.stop()

    def say(self, text: str) -> None:
        """A line that stays.

        Args:
            text: What to say.
        """
        self.console.print(escape(text), soft_wrap=True)

    def started(self, number: int, params: Mapping[str, Any]) -> None:
        """A trial begins or goes on.

        Args:
            number: Of the trial.
            params: What it tries.
        """
        if not self._live:
            told = ", ".join(
                f"{name} {text_of(value)}"
                for name, value in zip(short_names(params), params.values(), strict=True)
            )
            self.say(f"{self._place(number)} starts: {told}")

    def ended(self, number: int, ending: Ending, value: float | None, reason: str) -> None:
        """A trial has ended.

        Args:
            number: Of the trial.
            ending: How.
            value: What it reached.
            reason: Why it failed.
        """
        if self._live and ending != "failed":
            return
        reached = f", {self.plan.metric} {short(value)}" if value is not None else ""
        self.say(
            f"{self._place(number)} {ending}{reached}{f': {reason}' if reason else ''}"
            f"{self._best()}"
        )

    def refresh(self, active: Sequence[int]) -> None:
        """Shows the table, on a terminal.

        Args:
            active: Trials at work here.
        """
        if self._live:
            self._live.update(self._table(active), refresh=True)

    def _place(self, number: int) -> str:
        return f"[{number + 1}/{self.study.budget}] trial{number:03d}"

    def _best(self) -> str:
        best = next(iter(ranked(self.study)), None)
        if best is None or best.value is None:
            return ""
        return f"; best so far {short(best.value)} of trial{best.number:03d}"

    def _table(self, active: Sequence[int]) -> Group:
        trials = ranked(self.study)
        table = Table(title=self.plan.sweep.experiment, title_justify="left")
        for name in ("trial", self.plan.metric, "", *short_names(self.plan.sweep.space)):
            table.add_column(name)
        at_work = [t for t in trials if not t.state.is_finished()]
        for trial in [*(t for t in trials if t.state.is_finished())][:_SHOWN] + at_work:
            state = ENDINGS.get(trial.state.name, "running")
            seen = trial.intermediate_values
            value = trial.value if trial.value is not None else seen[max(seen)] if seen else None
            note = f"validation {max(seen)}" if seen and state == "running" else state
            here = state != "running" or trial.number in active
            table.add_row(
                f"trial{trial.number:03d}",
                short(value) if value is not None else "",
                Text(note if here else f"{note}, elsewhere", style=_STYLES[state]),
                *(text_of(trial.params.get(key, "")) for key in self.plan.sweep.space),
            )
        done = sum(t.state.is_finished() for t in trials)
        return Group(table, Text(f"{done}/{self.study.budget} done"))
