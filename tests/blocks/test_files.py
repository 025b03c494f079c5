"""Atomic files, and checkpoints of strangers: read when honest, inert when not."""

import argparse
import collections
import io
import json
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from blocks.errors import SuiteError
from blocks.files import (
    Inert,
    atomic_path,
    cache_dir,
    load_foreign,
    load_npz,
    load_pickle,
    write_json,
    write_text,
)

FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


class Calls:
    """Pickles as a call of `function`: what a hostile file does."""

    def __init__(self, function: Callable[..., Any], *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return self.call


def save(content: object, path: Path, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def vim_training_checkpoint() -> dict[str, Any]:
    """The structure that hustvl/Vim's main.py writes."""
    network = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 10)
    return {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": scheduler.state_dict(),
        "epoch": 299,
        "model_ema": {name: 0.5 * value for name, value in network.state_dict().items()},
        "scaler": "none",
        "args": argparse.Namespace(model="vim_tiny", lr=5e-4, opt_betas=None, sizes=[1, 2]),
    }


# ---- writing ------------------------------------------------------------------------------------


def test_atomic_path_renames_only_when_all_went_well(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "table.csv"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent
        assert temporary.suffix == ".csv"
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_write_keeps_the_old_file_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "summary.json"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o007, 0o660), (0o077, 0o600)])
def test_files_get_the_permissions_of_any_new_file(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write_text(tmp_path / "note.txt", "x")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert (tmp_path / "note.txt").stat().st_mode & 0o777 == mode


def test_text_is_utf8_and_json_is_json(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Größe ≤ 1")
    assert (tmp_path / "a.txt").read_bytes() == "Größe ≤ 1".encode()
    write_json(tmp_path / "a.json", {"path": Path("x/y"), "n": [1, 2.5, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"path": "x/y", "n": [1, 2.5, None]}


def test_unwritable_json_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {("a", "tuple"): 1})
    assert list(tmp_path.iterdir()) == []


def test_the_cache_follows_its_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BIMAMBA_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("BIMAMBA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "bimamba"


# ---- honest files -------------------------------------------------------------------------------


@FORMATS
def test_reads_a_vim_training_checkpoint_whole(tmp_path: Path, zipped: bool) -> None:
    original = vim_training_checkpoint()
    found = load_foreign(save(original, tmp_path / "vim.pth", zipped))
    assert list(found) == list(original)
    for part in ("model", "model_ema"):
        for name, value in original[part].items():
            assert torch.equal(found[part][name], value)
    state = found["optimizer"]["state"][0]
    assert torch.equal(state["exp_avg"], original["optimizer"]["state"][0]["exp_avg"])
    assert found["epoch"] == 299
    assert found["scaler"] == "none"
    assert isinstance(found["args"], Inert)
    assert not isinstance(found["args"], argparse.Namespace)
    assert (found["args"].lr, found["args"].sizes) == (5e-4, [1, 2])


@FORMATS
def test_reads_a_vmamba_checkpoint_without_its_config_class(tmp_path: Path, zipped: bool) -> None:
    module: Any = types.ModuleType("yacs.config")
    node_type: Any = type("CfgNode", (dict,), {"__module__": "yacs.config"})
    module.CfgNode = node_type
    node = node_type(TRAIN=node_type(EPOCHS=300))
    node.frozen = True
    weight = torch.randn(2, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", module)
        content = {"model": {"w": weight}, "max_accuracy": 82.6, "config": node}
        path = save(content, tmp_path / "vmamba.pth", zipped)
    assert "yacs.config" not in sys.modules
    found = load_foreign(path)
    assert torch.equal(found["model"]["w"], weight)
    assert found["config"]["TRAIN"]["EPOCHS"] == 300
    assert found["config"].frozen is True
    assert "yacs.config" not in sys.modules


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_reads_every_dtype_parameter_and_plain_container(tmp_path: Path, protocol: int) -> None:
    content = {
        "dtypes": [torch.ones(2).to(d) for d in (torch.float16, torch.bfloat16, torch.int64)],
        "dtype": torch.bfloat16,
        "flag": torch.tensor([True]),
        "complex": torch.ones(1, dtype=torch.complex64),
        "parameter": torch.nn.Parameter(torch.arange(3.0)),
        "shape": torch.Size([1, 2]),
        "ordered": collections.OrderedDict(a=1),
        "set": {1, 2},
        "slice": slice(1, 2),
        "bytes": b"\x00\xff",
    }
    torch.save(content, tmp_path / "all.pt", pickle_protocol=protocol)
    found = load_foreign(tmp_path / "all.pt")
    for mine, theirs in zip(found.pop("dtypes"), content.pop("dtypes"), strict=True):
        assert torch.equal(mine, theirs)
    for name in ("flag", "complex", "parameter"):
        assert torch.equal(found.pop(name), content.pop(name))
    assert found == content


@pytest.mark.parametrize("protocol", [2, 4])
def test_numpy_numbers_beside_the_weights_do_not_spoil_the_file(
    tmp_path: Path, protocol: int
) -> None:
    content = {"model": {"w": torch.ones(1)}, "best": np.float64(76.1), "seeds": np.arange(3)}
    torch.save(content, tmp_path / "a.pth", pickle_protocol=protocol)
    found = load_foreign(tmp_path / "a.pth")
    assert found["best"] == 76.1
    assert found["seeds"].tolist() == [0, 1, 2]


@FORMATS
def test_a_defaultdict_of_lists_is_a_plain_container(tmp_path: Path, zipped: bool) -> None:
    history = collections.defaultdict(list, loss=[1.0, 0.5])
    found = load_foreign(save({"history": history}, tmp_path / "a.pth", zipped))
    assert found["history"] == {"loss": [1.0, 0.5]}


@FORMATS
def test_a_whole_pickled_module_arrives_without_its_class(tmp_path: Path, zipped: bool) -> None:
    found = load_foreign(save(torch.nn.Linear(2, 1), tmp_path / "module.pth", zipped))
    assert isinstance(found, Inert)
    assert found._parameters["weight"].shape == (1, 2)


def test_shared_and_sliced_tensors_keep_their_values(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    found = load_foreign(save({"a": base[:, 1], "b": base.T}, tmp_path / "views.pt"))
    assert found["a"].tolist() == [1.0, 5.0, 9.0]
    assert torch.equal(found["b"], base.T)


def test_reads_safetensors(tmp_path: Path) -> None:
    weights = {"w": torch.randn(2, 2), "n": torch.tensor(3)}
    save_file(weights, tmp_path / "a.safetensors")
    found = load_foreign(str(tmp_path / "a.safetensors"))
    assert found.keys() == weights.keys()
    assert torch.equal(found["w"], weights["w"])


# ---- hostile files ------------------------------------------------------------------------------


def touch(path: Path) -> list[str]:
    return [sys.executable, "-c", f"open({str(path)!r}, 'w')"]


def attacks(proof: Path) -> dict[str, tuple[Calls, str]]:
    """Objects that would create `proof` when unpickled, and the call the refusal must name."""
    write = f"open({str(proof)!r}, 'w')"
    return {
        "system": (Calls(os.system, subprocess.list2cmdline(touch(proof))), "system"),
        "eval": (Calls(eval, write), "builtins.eval"),
        "exec": (Calls(exec, write), "builtins.exec"),
        "open": (Calls(open, str(proof), "w"), "open"),
        "popen": (Calls(subprocess.Popen, touch(proof)), "subprocess.Popen"),
        "getattr": (Calls(getattr, Calls(__import__, "os"), "getcwd"), "builtins."),
    }


@pytest.mark.parametrize("attack", sorted(attacks(Path("x"))))
@pytest.mark.parametrize("place", ["alone", "nested"])
@FORMATS
def test_a_hostile_checkpoint_is_refused_and_nothing_runs(
    tmp_path: Path, attack: str, place: str, zipped: bool
) -> None:
    proof = tmp_path / "proof"
    call, name = attacks(proof)[attack]
    content = (
        call if place == "alone" else {"model": {"w": torch.ones(2), "buffers": [{"x": call}]}}
    )
    path = save(content, tmp_path / "evil.pth", zipped)
    with pytest.raises(SuiteError) as caught:
        load_foreign(path)
    assert not proof.exists()
    for part in (name, "was not run", str(path), "safetensors"):
        assert part in str(caught.value)


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Without the guard each of them does what it says, or the tests above prove nothing."""
    for attack, (call, _) in attacks(tmp_path / "proof").items():
        if attack == "getattr":
            continue
        result = pickle.loads(pickle.dumps(call))
        if isinstance(result, subprocess.Popen):
            result.wait()
        assert (tmp_path / "proof").exists(), attack
        (tmp_path / "proof").unlink()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_in_dicts_are_read_from_a_pickle_of_any_protocol(
    tmp_path: Path, protocol: int
) -> None:
    content = {
        "x": np.arange(6, dtype=np.float32).reshape(2, 3),
        "names": np.array(["a", "bc"]),
        "objects": np.array([{"y": np.ones(2)}, None], dtype=object),
        "list": [np.str_("s"), np.float64(0.5)],
    }
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content, protocol))
    found = load_pickle(tmp_path / "data.pkl")
    np.testing.assert_array_equal(found["x"], content["x"])
    assert found["names"].tolist() == ["a", "bc"] and found["list"] == ["s", 0.5]
    np.testing.assert_array_equal(found["objects"][0]["y"], np.ones(2))


@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
def test_an_npz_gives_its_arrays_and_dicts(tmp_path: Path, save_npz: Callable[..., None]) -> None:
    path = tmp_path / "data.npz"
    inner = {"S1": {"Walking 1": np.ones((4, 32, 3), np.float32)}}
    save_npz(path, plain=np.arange(5), boxed=inner, column=np.asfortranarray(np.eye(3)))
    found = load_npz(path)
    assert found["plain"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(found["column"], np.eye(3))
    np.testing.assert_array_equal(found["boxed"]["S1"]["Walking 1"], np.ones((4, 32, 3)))


def test_a_hostile_npz_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    for attack, (call, name) in attacks(tmp_path / "proof").items():
        box = np.empty((), dtype=object)
        box[()] = {"x": call}
        np.savez(tmp_path / "evil.npz", data=box)
        with pytest.raises(SuiteError) as caught:
            load_npz(tmp_path / "evil.npz")
        assert name in str(caught.value) and not (tmp_path / "proof").exists(), attack


def test_a_damaged_npz_is_an_error_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, x=np.arange(100))
    path.write_bytes(path.read_bytes()[:200])
    for broken in (path, tmp_path / "none.npz"):
        with pytest.raises(SuiteError, match="cure"):
            load_npz(broken)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_raw_pickle_is_refused_before_it_runs(tmp_path: Path, protocol: int) -> None:
    call = Calls(eval, f"open({str(tmp_path / 'proof')!r}, 'w')")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps({"model": call}, protocol))
    with pytest.raises(SuiteError, match=r"eval; it was not run"):
        load_foreign(tmp_path / "raw.pth")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "os.system"),
        ("torch.serialization", "os.system"),
        ("collections", "_sys.modules"),
        ("numpy", "dtype.__class__"),
        ("torch._utils", "_rebuild_tensor.__globals__"),
    ],
)
def test_dotted_names_of_protocol_4_reach_nothing(tmp_path: Path, module: str, name: str) -> None:
    proof = tmp_path / "proof"
    command = subprocess.list2cmdline(touch(proof)).encode()
    stack_global = b"".join(
        b"\x8c" + len(word).to_bytes(1, "little") + word
        for word in (module.encode(), name.encode())
    )
    argument = b"X" + len(command).to_bytes(4, "little") + command
    program = b"\x80\x04" + stack_global + b"\x93" + argument + b"\x85R."
    assert pickle.loads(b"\x80\x04" + stack_global + b"\x93.") is not None
    path = tmp_path / "dotted.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3")
    assert isinstance(load_foreign(path), Inert)
    assert not proof.exists()


def test_a_foreign_class_is_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "a.pth").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02ctrap_module\nTrap\n)\x81.")
        archive.writestr("archive/version", "3")
    assert type(load_foreign(tmp_path / "a.pth")).__name__ == "Trap"
    assert "trap_module" not in sys.modules


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_torchscript_archive_is_refused_for_it_holds_code(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), str(tmp_path / "script.pt"))
    with pytest.raises(SuiteError, match="TorchScript"):
        load_foreign(tmp_path / "script.pt")


# ---- damaged files ------------------------------------------------------------------------------


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no such file"):
        load_foreign(tmp_path / "none.pth")
    with pytest.raises(SuiteError, match="a folder"):
        load_foreign(tmp_path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"\n <html><body>404</body></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
        (b"\x00garbage" * 40, "a file of 320 bytes"),
    ],
    ids=["empty", "html", "html-later", "lfs", "garbage"],
)
def test_says_what_came_instead_of_a_checkpoint(
    tmp_path: Path, suffix: str, content: bytes, found: str
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(SuiteError) as caught:
        load_foreign(path)
    assert found in str(caught.value)
    assert str(path) in str(caught.value)
    assert "download the file again" in str(caught.value)


@FORMATS
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_cut_short_is_refused(tmp_path: Path, zipped: bool, kept: float) -> None:
    buffer = io.BytesIO()
    torch.save({"w": torch.randn(400)}, buffer, _use_new_zipfile_serialization=zipped)
    path = tmp_path / "cut.pth"
    path.write_bytes(buffer.getvalue()[: int(kept * len(buffer.getvalue()))])
    with pytest.raises(SuiteError, match="cut short" if zipped else "could not be read"):
        load_foreign(path)


def test_a_flipped_byte_in_the_pickle_is_an_error_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "bad.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}\xff.")
        archive.writestr("archive/version", "3")
    with pytest.raises(SuiteError, match="download the file again"):
        load_foreign(path)
