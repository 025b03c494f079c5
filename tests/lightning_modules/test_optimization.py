"""Groups, learning-rate rule and schedule against what hustvl/Vim and timm compute."""

import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from blocks.errors import SuiteError
from lightning_modules.optimization import (
    Optimizer,
    Schedule,
    build_optimizer,
    build_scheduler,
    check_lr,
    learning_rate,
    parameter_groups,
    scaled_lr,
)
from lightning_modules.vision import VisionMamba

GOLDEN = Path(__file__).parents[1] / "golden" / "vision"
CASES = {
    name: case
    for name, case in json.loads((GOLDEN / "lr_schedules.json").read_text()).items()
    if name != "note"
}


def tiny() -> VisionMamba:
    return VisionMamba(img_size=32, patch_size=16, dim=16, depth=1, num_classes=5)


def names_in(groups: list[dict[str, Any]], network: nn.Module) -> dict[str, list[str]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {group["name"]: [names[id(p)] for p in group["params"]] for group in groups}


def schedule_of(case: dict[str, Any], **options: Any) -> Schedule:
    given = {name: case["cfg"][name] for name in ("warmup_epochs", "warmup_lr", "min_lr")}
    return Schedule(**given, upstream_epoch_lag=True, **options)


def rates(schedule: Schedule, lr: float, epochs: int, steps_per_epoch: int) -> list[float]:
    """The rate at the start of each epoch of a real optimiser and scheduler."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr)
    entry = build_scheduler(
        optimizer, lr=lr, steps=epochs * steps_per_epoch, epochs=epochs, schedule=schedule
    )
    assert entry["interval"] == schedule.interval
    found = []
    for _ in range(epochs):
        found.append(optimizer.param_groups[0]["lr"])
        for _ in range(steps_per_epoch):
            optimizer.step()
            if schedule.interval == "step":
                entry["scheduler"].step()
        if schedule.interval == "epoch":
            entry["scheduler"].step()
    return found


# ---- learning rate ------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_scaling_by_the_global_batch_is_upstreams(case: dict[str, Any]) -> None:
    config = case["cfg"]
    found = scaled_lr(
        Optimizer(lr=config["lr"]), config["batch_size_per_gpu"] * config["world_size"]
    )
    assert found == pytest.approx(case["scaled_lr"], rel=1e-12)


def test_the_rate_is_taken_as_it_is_without_a_batch_to_scale_by() -> None:
    assert scaled_lr(Optimizer(lr=0.3, lr_scale_batch=None), 4096) == 0.3
    assert scaled_lr(Optimizer(lr=0.3, lr_scale_batch=256), 1024) == pytest.approx(1.2)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_cosine_equals_upstream_in_every_epoch(case: dict[str, Any]) -> None:
    epochs, lr = case["cfg"]["epochs"], case["scaled_lr"]
    schedule = schedule_of(case, interval="epoch")
    found = [learning_rate(e, lr=lr, epochs=epochs, schedule=schedule) for e in range(epochs)]
    assert found == pytest.approx(case["lr_used_in_epoch"], rel=1e-12, abs=1e-16)


@pytest.mark.parametrize("interval", ["epoch", "step"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_real_scheduler_equals_upstream_at_every_epoch(
    case: dict[str, Any], interval: Any
) -> None:
    schedule = schedule_of(case, interval=interval)
    found = rates(schedule, case["scaled_lr"], case["cfg"]["epochs"], steps_per_epoch=3)
    assert found == pytest.approx(case["lr_used_in_epoch"], rel=1e-12, abs=1e-16)


@pytest.mark.parametrize("lag", [False, True])
def test_steps_and_epochs_agree_at_epoch_boundaries(lag: bool) -> None:
    options = {"warmup_epochs": 2.5, "upstream_epoch_lag": lag}
    by_step, by_epoch = (
        rates(Schedule(interval=interval, **options), 1e-3, epochs=9, steps_per_epoch=7)  # type: ignore[arg-type]
        for interval in ("step", "epoch")
    )
    assert by_step == pytest.approx(by_epoch, rel=1e-12)


def test_without_lag_the_first_epoch_warms_up_and_the_last_step_comes_near_the_end() -> None:
    schedule = Schedule(warmup_epochs=2, warmup_lr=1e-6, min_lr=1e-5)
    at = {t: learning_rate(t, lr=1e-3, epochs=10, schedule=schedule) for t in (0, 1, 2, 5, 10, 11)}
    assert at[0] == 1e-6
    assert at[1] == pytest.approx((1e-6 + 1e-3) / 2)
    assert at[2] == pytest.approx(1e-5 + (1e-3 - 1e-5) / 2 * (1 + math.cos(math.pi * 0.2)))
    assert at[5] == pytest.approx((1e-3 + 1e-5) / 2)
    assert at[10] == at[11] == pytest.approx(1e-5)


def test_groups_with_their_own_rates_keep_their_ratio() -> None:
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "lr": 1e-3},
        {"params": [nn.Parameter(torch.zeros(1))], "lr": 1e-4},
    ]
    optimizer = torch.optim.SGD(groups, 1e-3)
    entry = build_scheduler(optimizer, lr=1e-3, steps=10, epochs=5, schedule=Schedule())
    for _ in range(4):
        first, second = (group["lr"] for group in optimizer.param_groups)
        assert first == pytest.approx(10 * second)
        optimizer.step()
        entry["scheduler"].step()


def test_a_rising_cosine_is_refused_with_its_cures() -> None:
    with pytest.raises(SuiteError) as caught:
        check_lr(7.8125e-7, Schedule(min_lr=1e-5))
    for part in ("7.81e-07", "1e-05", "rise", "lr_scale_batch", "allow_rising"):
        assert part in str(caught.value)


def test_a_flat_cosine_is_warned_about() -> None:
    for lr in (1e-5, 1.25e-5, 2e-5):
        with pytest.warns(UserWarning, match="nearly flat"):
            check_lr(lr, Schedule(min_lr=1e-5))


@pytest.mark.parametrize(
    ("lr", "schedule"),
    [(2.1e-5, Schedule(min_lr=1e-5)), (1e-9, Schedule(min_lr=1e-5, allow_rising=True))],
)
def test_a_sound_or_allowed_rate_passes_in_silence(lr: float, schedule: Schedule) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_lr(lr, schedule)


# ---- groups -------------------------------------------------------------------------------------


def test_groups_equal_upstreams_when_ssm_parameters_decay() -> None:
    golden = json.loads((GOLDEN / "vim_param_groups.json").read_text())
    network = tiny()
    found = names_in(parameter_groups(network, Optimizer(decay_ssm_params=True)), network)
    assert {name: sorted(names) for name, names in found.items()} == {
        name: sorted(names) for name, names in golden["upstream"].items()
    }


def test_ssm_parameters_leave_the_decay_by_default() -> None:
    golden = json.loads((GOLDEN / "vim_param_groups.json").read_text())
    network = tiny()
    found = names_in(parameter_groups(network, Optimizer()), network)
    marked = set(golden["flagged_no_weight_decay_but_decayed_upstream"])
    assert marked == {"layers.0.mixer.A_log", "layers.0.mixer.A_b_log"}
    assert set(found["decay"]) == set(golden["upstream"]["decay"]) - marked
    assert set(found["no_decay"]) == set(golden["upstream"]["no_decay"]) | marked


def test_every_trainable_parameter_is_in_one_group_and_frozen_ones_in_none() -> None:
    network = nn.ModuleDict({"network": tiny(), "other": nn.BatchNorm2d(3)})
    frozen = [*network["network"].patch_embed.parameters(), network["network"].layers[0].mixer.D]
    for parameter in frozen:
        parameter.requires_grad_(False)
    groups = parameter_groups(network, Optimizer(weight_decay=0.3))
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in network.parameters() if p.requires_grad}
    assert set(grouped).isdisjoint(id(p) for p in frozen)
    assert {g["name"]: g["weight_decay"] for g in groups} == {"decay": 0.3, "no_decay": 0.0}


def test_the_networks_own_list_counts_below_a_workload_too() -> None:
    module = nn.ModuleDict({"network": tiny()})
    found = names_in(parameter_groups(module, Optimizer()), module)
    assert {"network.pos_embed", "network.cls_token"} <= set(found["no_decay"])


def test_shared_weights_are_grouped_once_and_empty_groups_left_out() -> None:
    shared = nn.Linear(2, 2, bias=False)
    groups = parameter_groups(nn.Sequential(shared, shared), Optimizer())
    assert [(g["name"], len(g["params"])) for g in groups] == [("decay", 1)]


# ---- optimisers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "lion", "nadamw"])
def test_timms_optimisers_come_by_name_and_keep_the_groups(name: str) -> None:
    network, config = tiny(), Optimizer(name=name, weight_decay=0.3)
    optimizer = build_optimizer(parameter_groups(network, config), 0.02, config)
    assert {g["name"]: g["weight_decay"] for g in optimizer.param_groups} == {
        "decay": 0.3,
        "no_decay": 0.0,
    }
    assert all(group["lr"] == 0.02 for group in optimizer.param_groups)
    before = network.head.weight.clone()
    network(torch.ones(1, 3, 32, 32)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, network.head.weight)


def test_adamw_is_torchs_and_takes_betas_and_eps() -> None:
    config = Optimizer(betas=(0.8, 0.95), eps=1e-6)
    optimizer = build_optimizer(parameter_groups(tiny(), config), 1e-3, config)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["betas"] == (0.8, 0.95)
    assert optimizer.defaults["eps"] == 1e-6
    config = Optimizer()
    plain = build_optimizer(parameter_groups(tiny(), config), 1e-3, config)
    assert (plain.defaults["betas"], plain.defaults["eps"]) == ((0.9, 0.999), 1e-8)


def test_sgd_takes_its_momentum() -> None:
    config = Optimizer(name="momentum", momentum=0.7)
    optimizer = build_optimizer(parameter_groups(tiny(), config), 1e-3, config)
    assert optimizer.defaults["momentum"] == 0.7


def test_an_unknown_optimiser_names_the_nearest() -> None:
    with pytest.raises(SuiteError) as caught:
        build_optimizer([], 1e-3, Optimizer(name="adamww"))
    assert "found: adamww" in str(caught.value)
    assert "adamw" in str(caught.value).split("cure:")[1]


def test_adams_options_do_not_disturb_other_optimisers() -> None:
    config = Optimizer(name="sgd", betas=(0.9, 0.99))
    optimizer = build_optimizer(parameter_groups(tiny(), config), 1e-3, config)
    assert type(optimizer) is torch.optim.SGD
    assert "betas" not in optimizer.defaults


def test_a_prefix_starts_the_cosine_after_the_warm_up() -> None:
    schedule = Schedule(warmup_epochs=2, warmup_prefix=True, min_lr=0)
    at = [learning_rate(t, lr=1.0, epochs=10, schedule=schedule) for t in (2, 6, 10)]
    assert at == pytest.approx([1, 0.5, 0])


def test_other_shapes_follow_their_formula_after_the_warm_up() -> None:
    exponential = Schedule(shape="exponential", gamma=0.99, warmup_epochs=0)
    steps = Schedule(shape="milestones", gamma=0.1, milestones=(4, 7), warmup_epochs=1, warmup_lr=0)
    constant = Schedule(shape="constant", warmup_epochs=0)
    for epoch in range(9):
        given: dict[str, float] = {"lr": 2.0, "epochs": 9}
        assert learning_rate(epoch, **given, schedule=constant) == 2
        found = learning_rate(epoch, **given, schedule=exponential)
        assert found == pytest.approx(2 * 0.99**epoch)
        expected = 0 if epoch == 0 else 2 if epoch < 4 else 0.2 if epoch < 7 else 0.02
        assert learning_rate(epoch, **given, schedule=steps) == pytest.approx(expected)


def test_poly_follows_the_power_of_the_time_that_is_left() -> None:
    # OpenMMLab's PolyLR with power 0.9 per epoch, as the published ESAM runs had it.
    schedule = Schedule(shape="poly", interval="epoch", warmup_epochs=0, min_lr=0)
    for epoch in range(129):
        found = learning_rate(epoch, lr=1e-4, epochs=128, schedule=schedule)
        assert found == pytest.approx(1e-4 * (1 - epoch / 128) ** 0.9)
    floor = Schedule(shape="poly", power=2.0, warmup_epochs=0, min_lr=0.5)
    assert learning_rate(5, lr=1.5, epochs=10, schedule=floor) == pytest.approx(0.75)
    assert learning_rate(12, lr=1.5, epochs=10, schedule=floor) == 0.5


def test_only_a_cosine_can_rise() -> None:
    check_lr(1e-9, Schedule(shape="exponential"))
    with pytest.raises(SuiteError, match="would rise"):
        check_lr(1e-9, Schedule())


def test_factors_of_the_rate_by_name() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    given = Optimizer(lr=1.0, lr_factors={"*.bias": 2.0, "0.*": 0.5}, lr_scale_batch=None)
    groups = parameter_groups(network, given)
    found = {g["name"]: (g.get("lr_scale", 1.0), len(g["params"])) for g in groups}
    assert found == {"times_0.5_decay": (0.5, 1), "decay": (1.0, 1), "times_2_no_decay": (2.0, 2)}
    made = build_optimizer(groups, 1.0, given)
    assert sorted(group["lr"] for group in made.param_groups) == [0.5, 1, 2]
    with pytest.raises(SuiteError, match="fits none"):
        parameter_groups(network, Optimizer(lr_factors={"head.*": 2.0}))
