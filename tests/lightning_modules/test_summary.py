"""summary.json: one schema, valid at any moment, true about how the run ended."""

import csv
import json
import pickle
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import nn
from torch.utils.data import DataLoader

from blocks import Recorded
from lightning_modules.cost import ForwardCost
from lightning_modules.summary import RunSummary
from lightning_modules.workload import Batch, Stage, Workload

KEYS = {
    *("schema", "run", "experiment", "workload", "status", "seed", "monitor", "mode", "metrics"),
    *("best_step", "params", "trainable_params", "seconds", "samples_per_second", "peak_memory"),
    *("protocol", "data", "versions", "git", "macs", "macs_counter"),
}


class Slope(Recorded, nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.zeros(4), requires_grad=False)


class Scripted(Workload):
    """Reports a given validation value in each epoch."""

    monitor, mode = "val/score", "max"

    def __init__(self, network: nn.Module, values: list[float]) -> None:
        super().__init__(network)
        self.values = values

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, torch.Tensor]:
        loss = (self.network.weight.sum() - batch["x"].mean()) ** 2
        if stage == "val":
            epoch = min(self.current_epoch, len(self.values) - 1)
            self.log("val/score", self.values[epoch], batch_size=1)
            self.log("val_raw/score", self.values[epoch] / 2, batch_size=1)
            self.log("val/epoch", float(self.current_epoch), batch_size=1)
        return {"loss": loss}


class Lower(Scripted):
    mode = "min"


class Watch(Callback):
    """Reads the file after every batch; raises what it is told to."""

    def __init__(self, root: Path, error: BaseException | None = None) -> None:
        self.path, self.error = root / "summary.json", error
        self.seen: list[dict[str, Any]] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(read(self.path.parent))
        if self.error is not None and trainer.global_step == 3:
            raise self.error


class Line(Recorded, nn.Module):
    """Four inputs to two outputs, called as `kind` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        if self.kind == "failing" and not self.training:
            raise RuntimeError("out of luck\nfor a reason")
        out: torch.Tensor = self.norm(self.linear(x))
        return out + torch.rand(()) * 0


class Called(Workload):
    """Calls its network in training; validates nothing."""

    monitor, mode = "val/score", "max"

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, torch.Tensor]:
        x, kind = batch["x"].expand(-1, 4), self.network.kind
        if kind == "packed":  # Three points a sample.
            x = x.repeat(3, 1)
        out = self.network(x, other=torch.ones(7)) if kind == "shared" else self.network(x)
        self.network(x[:2])
        return {"loss": (out**2).mean()}


def cost(root: Path, kind: str) -> tuple[dict[str, Any], Line]:
    module = Called(Line(kind))
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=root,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=2,
        callbacks=[RunSummary("digits", kind)],
    )
    trainer.fit(module, DataLoader([{"x": torch.ones(1)}] * 12, batch_size=6))
    return read(root), module.network  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kind", "macs"), [("plain", 8), ("packed", 3 * 8), ("shared", 8)], ids=lambda v: str(v)
)
def test_counts_the_macs_of_a_sample(tmp_path: Path, kind: str, macs: int) -> None:
    found, network = cost(tmp_path, kind)
    assert found["macs"] == macs
    assert "FlopCounterMode / 2" in found["macs_counter"]
    assert not network._forward_pre_hooks
    # Two calls a step, four steps: counting in evaluation mode has left no trace in it.
    assert int(network.norm.num_batches_tracked) == 8


def test_counts_a_compiled_network_without_compiling_it_anew(tmp_path: Path) -> None:
    torch._dynamo.reset()
    network = nn.Linear(4, 2)
    network.compile(backend="eager")
    cost_of = ForwardCost()
    compiled = network._compiled_call_impl
    cost_of.watch(network)
    network(torch.ones(6, 4))
    assert network._compiled_call_impl is compiled
    cost_of.count(6, nullcontext())
    assert cost_of.macs == 8


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.forward_features(x))


@pytest.mark.parametrize("whole", [False, True])
def test_a_backbone_asked_for_features_alone_is_counted_whole(whole: bool) -> None:
    network, cost_of = Backbone(), ForwardCost()
    cost_of.watch(network)
    (network if whole else network.forward_features)(torch.ones(6, 4))
    assert "forward_features" not in network.__dict__ and not network._forward_pre_hooks
    cost_of.count(6, nullcontext())
    assert cost_of.macs == 4 * 8 + 8 * 2


def test_training_goes_on_the_same_whether_macs_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    _, counted = cost(tmp_path, "plain")
    monkeypatch.setattr(ForwardCost, "watch", lambda *_: None)
    torch.manual_seed(0)
    found, plain = cost(tmp_path, "plain")
    assert found["macs"] is None
    for name, weights in plain.state_dict().items():
        assert torch.equal(weights, counted.state_dict()[name]), name


def test_can_be_sent_to_another_process_before_the_fit() -> None:
    assert pickle.loads(pickle.dumps(RunSummary("digits", "first"))).run == "first"


def test_a_failure_to_count_is_a_note_and_no_failure(tmp_path: Path) -> None:
    found, network = cost(tmp_path, "failing")
    assert (found["status"], found["macs"]) == ("finished", None)
    assert found["macs_counter"] == "not counted: RuntimeError: out of luck"
    assert network.training


def test_a_network_that_is_never_called_as_a_whole_has_no_macs(
    finished: tuple[dict[str, Any], "Watch"],
) -> None:
    found = finished[0]
    assert found["macs"] is None
    assert "did not call the network as a whole" in found["macs_counter"]


def read(root: Path) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads((root / "summary.json").read_text(), parse_constant=refuse)


def fit(
    root: Path,
    *callbacks: Callback,
    values: tuple[float, ...] = (0.5,),
    kind: type[Scripted] = Scripted,
    summary: RunSummary | None = None,
    **options: Any,
) -> dict[str, Any]:
    given = {"max_epochs": len(values), "num_sanity_val_steps": 0, "logger": False} | options
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        default_root_dir=root,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[summary or RunSummary("digits", "first"), *callbacks],
        **given,
    )
    loader = DataLoader([{"x": torch.ones(2)}] * 12, batch_size=6)
    trainer.fit(kind(Slope(), list(values)), loader, loader)
    return read(root)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Watch]:
    root = tmp_path_factory.mktemp("finished")
    watch = Watch(root)
    return fit(root, watch, values=(0.1, 0.9, 0.9, 0.4)), watch


def test_holds_every_key_that_tables_read(finished: tuple[dict[str, Any], Watch]) -> None:
    found = finished[0]
    assert found.keys() >= KEYS
    assert found["metrics"].keys() == {"best", "last", "raw"}
    assert found["data"].keys() == {"root", "synthetic", "hash"}
    assert (found["experiment"], found["run"], found["workload"]) == ("digits", "first", "Scripted")
    assert (found["monitor"], found["mode"]) == ("val/score", "max")
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert len(found["git"]["rev"]) == 40 if found["git"] else True


def test_counts_parameters_epochs_and_steps(finished: tuple[dict[str, Any], Watch]) -> None:
    found = finished[0]
    assert (found["params"], found["trainable_params"]) == (7, 3)
    assert (found["epochs"], found["steps"]) == (4, 8)
    assert found["peak_memory"] > 10**7


def test_best_is_the_first_of_the_best_and_last_the_last(
    finished: tuple[dict[str, Any], Watch],
) -> None:
    found = finished[0]
    assert found["metrics"]["best"]["val/score"] == pytest.approx(0.9)
    assert found["metrics"]["best"]["val/epoch"] == 1
    assert found["best_step"] == 4
    assert found["metrics"]["last"]["val/score"] == pytest.approx(0.4)
    assert found["metrics"]["last"]["val/epoch"] == 3
    assert found["metrics"]["raw"] == {"val_raw/score": pytest.approx(0.2)}


def test_lower_is_better_where_the_workload_says_so(tmp_path: Path) -> None:
    found = fit(tmp_path, values=(0.5, 0.2, 0.7), kind=Lower)
    assert found["metrics"]["best"]["val/score"] == pytest.approx(0.2)
    assert found["best_step"] == 4


def test_is_valid_json_while_the_run_works(finished: tuple[dict[str, Any], Watch]) -> None:
    found, watch = finished
    assert len(watch.seen) == 8
    assert {seen["status"] for seen in watch.seen} == {"running"}
    assert watch.seen[0]["metrics"] == {"best": {}, "last": {}, "raw": {}}
    assert watch.seen[-1]["metrics"]["best"]["val/epoch"] == 1
    assert found["status"] == "finished"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("out of luck"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
        (SIGTERMException(), "interrupted"),
    ],
    ids=["error", "ctrl-c", "sigterm"],
)
def test_says_how_the_run_ended(tmp_path: Path, error: BaseException, status: str) -> None:
    with pytest.raises((RuntimeError, SystemExit, KeyboardInterrupt, SIGTERMException)):
        fit(tmp_path, Watch(tmp_path, error), values=(0.1, 0.2))
    found = read(tmp_path)
    assert found["status"] == status
    assert found["steps"] == 3
    assert found["metrics"]["best"]["val/score"] == pytest.approx(0.1)


def test_a_second_try_inside_an_except_block_finishes_too(tmp_path: Path) -> None:
    try:
        raise RuntimeError("first try")
    except RuntimeError:
        assert fit(tmp_path)["status"] == "finished"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_diverged_metric_is_null_and_never_the_best(tmp_path: Path, value: float) -> None:
    found = fit(tmp_path, values=(value, 0.3, value))
    assert found["metrics"]["last"]["val/score"] is None
    assert found["metrics"]["best"]["val/score"] == pytest.approx(0.3)


def test_the_sanity_check_is_no_result(tmp_path: Path) -> None:
    found = fit(tmp_path, values=(0.5, 0.1), num_sanity_val_steps=1, limit_val_batches=1)
    assert found["best_step"] == 2


def test_samples_per_second_leave_validation_out(tmp_path: Path) -> None:
    class Slow(Callback):
        def on_validation_start(self, *_: Any) -> None:
            time.sleep(0.5)

    found = fit(tmp_path, Slow())
    assert found["seconds"] >= 0.5
    assert found["samples_per_second"] > 12 / 0.5
    assert read(tmp_path)["samples_per_second"] == found["samples_per_second"]


def test_every_epoch_logs_its_speed_and_memory_once(tmp_path: Path) -> None:
    found = fit(tmp_path, values=(0.1, 0.2, 0.3), logger=CSVLogger(tmp_path, "", ""))
    with (tmp_path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["perf/samples_per_second"]]
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    assert all(float(row["perf/samples_per_second"]) > 0 for row in rows)
    assert float(rows[-1]["perf/peak_memory"]) == pytest.approx(found["peak_memory"], rel=0.1)
    assert not [name for name in found["metrics"]["last"] if name.startswith("perf/")]


def test_evaluation_alone_has_no_speed(tmp_path: Path) -> None:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        callbacks=[RunSummary("digits", "check")],
    )
    loader = DataLoader([{"x": torch.ones(2)}] * 2, batch_size=2)
    trainer.validate(Scripted(Slope(), [0.7]), loader, verbose=False)
    found = read(tmp_path)
    assert (found["status"], found["samples_per_second"]) == ("finished", None)
    assert (found["macs"], found["macs_counter"]) == (None, "not counted: nothing was trained")
    assert found["metrics"]["last"]["val/score"] == pytest.approx(0.7)
