"""Energy from the counters of the system, where it has some."""

from pathlib import Path

import torch

from lightning_modules.energy import EnergyCounter

CPU = torch.device("cpu")


def counters(folder: Path, **energies: int) -> None:
    for name, energy in energies.items():
        zone = folder / f"intel-rapl:{name.removeprefix('z').replace('_', ':')}"
        zone.mkdir(exist_ok=True)
        (zone / "energy_uj").write_text(f"{energy}\n")
        (zone / "max_energy_range_uj").write_text("10000000\n")


def test_processors_are_added_up_and_their_parts_not_twice(tmp_path: Path) -> None:
    counters(tmp_path, z0=1_000_000, z1=0, z0_0=500_000)
    counter = EnergyCounter(CPU, tmp_path)
    assert counter.source == "2 processor packages (RAPL)" and counter.update() == 0.0
    counters(tmp_path, z0=3_000_000, z1=500_000, z0_0=900_000)
    assert counter.update() == 2.5


def test_a_counter_that_wraps_goes_on(tmp_path: Path) -> None:
    counters(tmp_path, z0=9_000_000)
    counter = EnergyCounter(CPU, tmp_path)
    counters(tmp_path, z0=1_000_000)
    assert counter.update() == 2.0


def test_nothing_is_guessed_without_counters(tmp_path: Path) -> None:
    counter = EnergyCounter(CPU, tmp_path)
    assert counter.source == "" and counter.update() is None
