"""A fair share of the machine for each process."""

import pytest

from bimamba.ablation import workers
from bimamba.ablation.workers import environment, gpu_share


@pytest.mark.parametrize(
    ("gpus", "parallel", "expected"),
    [
        (["0", "1", "2", "3"], 2, [["0", "1"], ["2", "3"]]),
        (["0", "1", "2"], 2, [["0"], ["1"]]),
        (["5"], 3, [["5"], ["5"], ["5"]]),
        (["a", "b"], 3, [["a"], ["b"], ["a"]]),
    ],
)
def test_gpus_are_shared_out(gpus: list[str], parallel: int, expected: list[list[str]]) -> None:
    assert [gpu_share(gpus, slot, parallel) for slot in range(parallel)] == expected


def test_cores_are_divided_and_private_settings_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "available_cpus", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("PL_GLOBAL_SEED", "5")
    monkeypatch.setenv("BIMAMBA_RUN_DIRECTORY", "elsewhere")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert environment(0, 1)["OMP_NUM_THREADS"] == "8"
    assert environment(0, 1)["CUDA_VISIBLE_DEVICES"] == "4,6"
    own = environment(1, 3)
    assert own["OMP_NUM_THREADS"] == "2"
    assert own["CUDA_VISIBLE_DEVICES"] == "6"
    assert not {"PL_GLOBAL_SEED", "BIMAMBA_RUN_DIRECTORY"} & own.keys()
    assert environment(0, 16)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment(0, 4)["OMP_NUM_THREADS"] == "3", "what the user says stands"
