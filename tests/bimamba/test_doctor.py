"""The doctor names what is broken, from inside an environment that is."""

import os
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from bimamba import doctor, packages
from bimamba.findings import Finding
from bimamba.main import main
from tests.conftest import ROOT

FORBIDDEN = ("lightning", "timm", "torchmetrics", "torchvision", "mamba_ssm", "causal_conv1d")
CODE = f"""
import sys
from bimamba.main import main
status = main(["doctor"])
imported = sorted(set({FORBIDDEN!r}) & sys.modules.keys())
assert not imported, imported
sys.exit(status)
"""


def run_doctor(site: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the verb in a process of its own, which sees the packages of `site` first."""
    path = os.pathsep.join([*([str(site)] if site else []), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, cwd=ROOT
    )


def write_package(site: Path, name: str, **files: bytes) -> None:
    """A package that nobody may import, and files beside its `__init__.py`."""
    folder = site / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(f"raise RuntimeError('{name} was imported')")
    for file, content in files.items():
        (folder / f"{file}.so").write_bytes(content)


def test_a_healthy_environment_has_status_0_and_imports_nothing_that_could_crash() -> None:
    done = run_doctor()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✓ torch pair" in done.stdout
    assert "fit together" in done.stdout
    assert "✓ requirements" in done.stdout
    assert "scan on cpu" in done.stdout
    assert "plain torch on cpu" in done.stdout


@pytest.mark.parametrize("library", ["_C", "_C_stable"])
def test_a_torchvision_for_another_torch_is_recognised_without_importing_it(
    tmp_path: Path, library: str
) -> None:
    write_package(tmp_path, "torchvision", **{library: b"no library"})
    done = run_doctor(tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "✗ torch pair" in done.stdout
    cure = (
        "    cure: install torch and torchvision as a pair from the same index: "
        "pip install --upgrade torch torchvision -c constraints.txt\n"
    )
    assert cure in done.stdout
    assert "was imported" not in done.stdout + done.stderr


def test_check_stops_before_a_bad_pair_crashes_lightning(tmp_path: Path) -> None:
    write_package(tmp_path, "torchvision", _C=b"no library")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "bimamba", "check", "--config", "configs/demo/vision.yaml"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "✗ environment" in done.stdout
    assert "cure: install torch and torchvision as a pair" in done.stdout
    assert "0/11 passed" in done.stdout
    assert not done.stderr


def test_half_installed_kernels_are_warnings(tmp_path: Path) -> None:
    write_package(tmp_path, "mamba_ssm")
    write_package(tmp_path, "causal_conv1d")
    (tmp_path / "causal_conv1d_cuda.py").write_text("raise ImportError('undefined symbol: _ZN3c1')")
    done = run_doctor(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "half installed: built without its kernels (selective_scan_cuda is mis" in done.stdout
    assert "half installed: causal_conv1d_cuda does not load" in done.stdout
    assert "undefined symbol: _ZN3c1" in done.stdout
    assert done.stdout.count("or build it anew with make setup-cuda") == 2
    assert "0 broken, 2 to look at" in done.stdout


def test_kernels_that_load_are_good_and_absent_ones_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_package(tmp_path, "half_mamba")
    (tmp_path / "half_mamba_cuda.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    assert packages.kernels("half-mamba", "half_mamba", "half_mamba_cuda").state == "good"
    absent = packages.kernels("no-mamba", "no_mamba", "no_mamba_cuda")
    assert (absent.state, absent.text[:6]) == ("good", "absent")


def test_missing_and_outdated_requirements_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "fake_suite-1.0.dist-info"
    info.mkdir()
    wanted = ("numpy>=1", "rich<1", "no-such-package", "never; extra == 'dev'")
    lines = [f"Requires-Dist: {line}" for line in wanted]
    (info / "METADATA").write_text("\n".join(["Name: fake-suite", "Version: 1.0", *lines]))
    monkeypatch.syspath_prepend(tmp_path)
    found = packages.requirements("fake-suite")
    assert found.state == "broken"
    assert "no-such-package is missing" in found.text
    assert "is not <1" in found.text
    assert "numpy" not in found.text
    assert "never" not in found.text
    assert "-c constraints.txt" in found.cure


def test_a_suite_that_is_not_installed_is_a_warning() -> None:
    assert packages.requirements("no-such-suite").state == "warning"


@pytest.mark.parametrize(
    ("text", "cpus"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", None)]
)
def test_a_quota_of_a_container_counts_as_cpus(tmp_path: Path, text: str, cpus: int | None) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text)
    unlimited = doctor.available_cpus(tmp_path / "none")
    assert doctor.available_cpus(file) == (unlimited if cpus is None else cpus)


def test_more_threads_than_cpus_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 64)
    monkeypatch.setattr(doctor, "available_cpus", lambda: 4)
    found = doctor.threads()
    assert found.state == "warning"
    assert found.cure == "export OMP_NUM_THREADS=4"


def test_a_cache_that_cannot_be_written_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIMAMBA_CACHE", str(tmp_path / "file" / "cache"))
    assert doctor.cache().state == "broken"
    monkeypatch.setenv("BIMAMBA_CACHE", str(tmp_path / "new" / "cache"))
    assert doctor.cache().state == "good"
    assert not (tmp_path / "new").exists()


def test_little_shared_memory_and_a_full_disk_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(64_000_000, 0, 64_000_000))
    assert "--shm-size" in doctor.shared_memory(tmp_path).cure
    assert doctor.disk(tmp_path).state == "warning"


def test_a_mode_that_wandb_does_not_know_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    assert doctor.wandb_mode().state == "warning"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert doctor.wandb_mode().state == "good"


def test_a_broken_finding_decides_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding("disk", "little", "warning", "tidy up")]
    monkeypatch.setattr(doctor, "inspect_environment", lambda: findings)
    assert main(["doctor"]) == 0
    assert "! disk             little\n    cure: tidy up\n" in capsys.readouterr().out
    findings.append(Finding("torch pair", "[no] match", "broken", "pair them"))
    assert main(["doctor"]) == 1
    assert "✗ torch pair       [no] match\n    cure: pair them\n" in capsys.readouterr().out


def test_words_that_doctor_does_not_know_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--config", "x.yaml"]) == 2
    assert "bimamba check" in capsys.readouterr().err


def test_a_driver_that_torch_does_not_see_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: "nvidia-smi")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    (found,) = doctor.devices()
    assert found.state == "warning"
    assert "sees no CUDA device" in found.text


def test_a_gpu_that_fails_its_first_operation_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    gpu = namedtuple("gpu", "name total_memory")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: gpu("Old", 4e9))
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    monkeypatch.setattr("torch.zeros", fail)
    (found,) = doctor.devices()
    assert (found.topic, found.state) == ("cuda:0", "broken")
    assert found.text.endswith("no kernel image is available for execution on the device")
