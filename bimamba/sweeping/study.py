"""The memory of a sweep: one journal file, shared by any number of processes and machines.

A trial belongs to the process that holds its lock. When that process dies the lock falls, and the
next one that looks for work takes the trial up where its runs stand.
"""

import itertools
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from bimamba.sweeping.description import Pruning, Sweep
from blocks.errors import SuiteError

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial

Ending = Literal["complete", "pruned", "failed"]
_NAME = "sweep"
_DEFINITION = "definition"
# Of a trial: why it failed.
REASON = "reason"


@dataclass
class Ticket:
    """The right to work on a trial.

    Args:
        number: Of the trial, from 0.
        params: What it tries, as the configuration spells it, by key.
        reported: Validations that the study knows of.
        lock: Held while somebody works on it.
    """

    number: int
    params: Mapping[str, Any]
    reported: int
    lock: FileLock = field(repr=False)


class Study:
    """What has been tried, and what to try next.

    Args:
        sweep: What the file says.
        directory: Folder of the experiment.
        mode: Whether the metric is to be small or great.
        metric: What is searched by.
        settings: What else decides the results: the base configuration in a few letters.

    Raises:
        SuiteError: The folder holds the study of another search, or a file that is none.
    """

    def __init__(
        self, sweep: Sweep, directory: Path, metric: str, mode: str, settings: str
    ) -> None:
        self.sweep, self.directory = sweep, directory
        self._locks = directory / ".locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        self._turn = FileLock(self._locks / "study")
        self.path = directory / "study.journal"
        with self._turn:
            self._storage, self._study = _open(self.path, mode)
            self._check(
                {"metric": metric, "mode": mode, "settings": settings, **_definition(sweep)}
            )

    @property
    def optuna(self) -> "optuna.Study":
        """The study for optuna's own functions."""
        return self._study

    @property
    def trials(self) -> "list[FrozenTrial]":
        """All that have begun, by number."""
        from optuna.trial import TrialState

        return [t for t in self._study.get_trials(deepcopy=False) if t.state != TrialState.WAITING]

    @property
    def budget(self) -> int:
        """Trials to make."""
        whole = math.prod(len(d.grid() or ()) for d in self.sweep.space.values())
        if self.sweep.sampler != "grid":
            return self.sweep.trials or 0
        return min(self.sweep.trials or whole, whole)

    def next(self) -> Ticket | None:
        """A trial whose process died, else a new one; None when there is nothing left to start."""
        with self._turn:
            begun = self.trials
            for trial in begun:
                if not trial.state.is_finished() and (lock := self._take(trial.number)):
                    return Ticket(
                        trial.number, self._values(trial), len(trial.intermediate_values), lock
                    )
            if len(begun) >= self.budget:
                return None
            # The seed follows the number, so that a search that was cut proposes the same.
            self._study.sampler = _sampler(self.sweep, len(begun))
            asked = self._study.ask()
            for dimension in self.sweep.space.values():
                dimension.suggest(asked)
            lock = self._take(asked.number)
            assert lock is not None, "nobody else knows of it yet"
            frozen = self._study.get_trials(deepcopy=False)[asked.number]
            return Ticket(asked.number, self._values(frozen), 0, lock)

    def report(self, ticket: Ticket, values: Sequence[float]) -> bool:
        """Tells the study of validations.

        Args:
            ticket: The trial.
            values: All that it has had, in order.

        Returns:
            Whether the trial should be given up.
        """
        give_up = False
        for step in range(ticket.reported, len(values)):
            identity = self._identity(ticket.number)
            self._storage.set_trial_intermediate_value(identity, step + 1, values[step])
            trial = self._storage.get_trial(identity)
            give_up = give_up or self.pruner.prune(self._study, trial)
        ticket.reported = max(ticket.reported, len(values))
        return give_up

    def tell(self, ticket: Ticket, ending: Ending, value: float | None, reason: str = "") -> None:
        """Ends a trial and gives it back.

        Args:
            ticket: The trial.
            ending: How it ended.
            value: What it reached; None where it reached nothing.
            reason: Why it failed.
        """
        from optuna.trial import TrialState

        states = {
            "complete": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        if reason:
            self._storage.set_trial_user_attr(self._identity(ticket.number), REASON, reason)
        told = value if ending == "complete" else None
        self._study.tell(ticket.number, told, states[ending], skip_if_finished=True)
        self.give_back(ticket)

    def give_back(self, ticket: Ticket) -> None:
        """Leaves a trial for whoever goes on."""
        ticket.lock.release()

    @property
    def pruner(self) -> "BasePruner":
        """What decides which trials are given up."""
        return _pruner(self.sweep.pruner)

    def busy(self) -> bool:
        """Whether another process works on a trial of this study."""
        for trial in self.trials:
            if trial.state.is_finished():
                continue
            if (lock := self._take(trial.number)) is None:
                return True
            lock.release()
        return False

    def _identity(self, number: int) -> int:
        study = self._storage.get_study_id_from_name(_NAME)
        return self._storage.get_trial_id_from_study_id_trial_number(study, number)

    def _take(self, number: int) -> FileLock | None:
        lock = FileLock(self._locks / f"trial-{number:03d}")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def _values(self, trial: "FrozenTrial") -> dict[str, Any]:
        space = self.sweep.space
        return {key: space[key].value(trial.params[key]) for key in space if key in trial.params}

    def _check(self, definition: Mapping[str, Any]) -> None:
        """Writes what is searched into a new study, and compares it with that of an old one."""
        known = self._study.user_attrs.get(_DEFINITION)
        if known is None:
            self._study.set_user_attr(_DEFINITION, dict(definition))
            if self.sweep.sampler == "grid":
                keys = list(self.sweep.space)
                for point in itertools.product(
                    *(d.grid() or () for d in self.sweep.space.values())
                ):
                    self._study.enqueue_trial(dict(zip(keys, point, strict=True)))
            return
        told = [
            f"{name}: {json.dumps(known.get(name))} there, {json.dumps(value)} here"
            for name, value in json.loads(json.dumps(definition)).items()
            if known.get(name) != value
        ]
        if told:
            raise SuiteError(
                expected="the study of this file, or none",
                found="the study of another search\n  " + "\n  ".join(told),
                where=str(self.path),
                cure="choose another `experiment`, or move that folder away",
            )


def _definition(sweep: Sweep) -> dict[str, Any]:
    space = {
        key: {"choice": list(d.labels())}
        if d.choices
        else {"log_range" if d.log else "range": [d.low, d.high], "step": d.step}
        for key, d in sweep.space.items()
    }
    points = {key: d.grid() for key, d in sweep.space.items()} if sweep.sampler == "grid" else None
    return {"space": space, "grid": points, "seeds": list(sweep.seeds)}


def _open(path: Path, mode: str) -> "tuple[optuna.storages.BaseStorage, optuna.Study]":
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    direction: Literal["minimize", "maximize"] = "minimize" if mode == "min" else "maximize"
    try:
        _check_journal(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = JournalStorage(JournalFileBackend(str(path)))
            study = optuna.create_study(
                study_name=_NAME, storage=storage, direction=direction, load_if_exists=True
            )
            return storage, study
    except (ValueError, KeyError, OSError) as error:
        raise SuiteError(
            expected="a study that bimamba sweep wrote, or none",
            found=f"a file that cannot be read: {' '.join(str(error).split())}",
            where=str(path),
            cure="move it away to begin anew, or bring back a copy of it",
        ) from error


def _check_journal(path: Path) -> None:
    """Keeps optuna from appending to a file of somebody else; the last line may be cut."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines()[:-1] or [path.read_text()]:
        if line.strip() and "op_code" not in json.loads(line):
            raise ValueError(f"a line without an operation: {line[:80]}")


def _sampler(sweep: Sweep, number: int) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import RandomSampler, TPESampler

    seed = sweep.seed * 100_003 + number
    if sweep.sampler != "tpe":
        return RandomSampler(seed=seed)
    startup = max(3, min(10, (sweep.trials or 10) // 3))
    return TPESampler(seed=seed, n_startup_trials=startup)


def _pruner(pruning: Pruning) -> "BasePruner":
    from optuna import pruners

    if pruning.kind == "none":
        return pruners.NopPruner()
    if pruning.kind == "hyperband":
        return pruners.HyperbandPruner(min_resource=max(pruning.warmup, 1))
    return pruners.MedianPruner(
        n_startup_trials=pruning.startup_trials, n_warmup_steps=pruning.warmup
    )
