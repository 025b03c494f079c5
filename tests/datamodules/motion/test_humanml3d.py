"""Batches of motion: what is in them, what is left out, and that nothing changes them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from datamodules.motion import HumanML3DDataModule, KITMLDataModule
from datamodules.motion.motion_datamodule import MotionDataModule
from datamodules.motion.samples import list_samples


def ready(
    root: Path,
    stage: str = "fit",
    kind: type[MotionDataModule] = HumanML3DDataModule,
    **options: Any,
) -> MotionDataModule:
    options = {"num_workers": 0, "batch_size": 4} | options
    data = kind(root=str(root), **options)  # type: ignore[call-arg]
    data.prepare_data()
    data.setup(stage)
    return data


@pytest.fixture
def copy(humanml3d: Path, tmp_path: Path) -> Path:
    shutil.copytree(humanml3d, tmp_path / "copy")
    return tmp_path / "copy"


def same(a: Any, b: Any) -> bool:
    for x, y in zip(a, b, strict=True):
        for key in x:
            equal = torch.equal(x[key], y[key]) if torch.is_tensor(x[key]) else x[key] == y[key]
            if not equal:
                return False
    return True


def test_a_batch_is_what_the_table_says(humanml3d: Path) -> None:
    data = ready(humanml3d)
    batch = next(iter(data.train_dataloader()))
    length = int(batch["length"].max())
    expected = {
        "motion": ((4, length, 263), torch.float32),
        "padding": ((4, length), torch.bool),
        "length": ((4,), torch.int64),
        "index": ((4,), torch.int64),
        "words": ((4, 22, 300), torch.float32),
        "word_classes": ((4, 22, 15), torch.float32),
        "word_count": ((4,), torch.int64),
    }
    assert {
        k: (tuple(v.shape), v.dtype) for k, v in batch.items() if torch.is_tensor(v)
    } == expected
    assert {k for k, v in batch.items() if isinstance(v, list)} == {"caption", "tokens", "name"}
    assert (batch["length"] % 4 == 0).all()
    assert (batch["motion"][batch["padding"]] == 0).all()
    assert torch.equal((~batch["padding"]).sum(1), batch["length"])


def test_motion_is_normalised_with_the_files_of_the_data(humanml3d: Path) -> None:
    data = ready(humanml3d, "validate")
    batch = next(iter(data.val_dataloader()))
    mean, std = (torch.tensor(getattr(data.info, name)) for name in ("mean", "std"))
    name, length = batch["name"][0], int(batch["length"][0])
    features = torch.from_numpy(np.load(humanml3d / "new_joint_vecs" / f"{name}.npy"))
    torch.testing.assert_close(batch["motion"][0, :length] * std + mean, features[:length])
    assert batch["motion"].shape[1] == 196, "evaluation pads to max_frames, whatever the batch"


def test_what_is_left_out_is_counted_and_named(humanml3d: Path) -> None:
    with pytest.warns(UserWarning, match=r"1 clips without a file \(first 999999\)"):
        data = ready(humanml3d)
    assert data.info.left_out == {
        "train": {"malformed caption lines": 2, "clips without a file": 1},
        "val": {"clips with NaN": 1},
    }
    assert data.info.counts["train"] == len(data._splits["train"])


def test_seconds_of_a_caption_are_a_sample_of_their_own(copy: Path) -> None:
    name = (copy / "val.txt").read_text().split()[1]
    frames = len(np.load(copy / "new_joint_vecs" / f"{name}.npy"))
    (copy / "texts" / f"{name}.txt").write_text(
        "a person walks.#a/DET#0.0#0.0\n"
        "someone turns.#a/DET#0.5#2.6\n"
        "too short.#a/DET#0.5#1.0\n"
        "after the end.#a/DET#60.0#70.0\n"
    )
    (copy / "val.txt").write_text(f"{name}\n")
    data = ready(copy, "validate")
    samples = {s.name: (s.start, s.stop, len(s.captions)) for s in data._splits["val"]}
    assert samples == {name: (0, frames, 1), f"{name}-2": (10, 52, 1)}
    assert data.info.left_out["val"] == {
        "pieces of clips under 40 frames": 1,
        "pieces of clips outside the clip": 1,
    }
    batch = next(iter(data.val_dataloader()))
    assert batch["name"] == [name, f"{name}-2"] and batch["length"][1] == 40


def test_lengths_of_the_published_loaders(copy: Path) -> None:
    names = (copy / "test.txt").read_text().split()
    for name, frames in zip(names, (39, 40, 199, 200), strict=True):
        np.save(copy / "new_joint_vecs" / f"{name}.npy", np.zeros((frames, 263), np.float32))
        (copy / "texts" / f"{name}.txt").write_text("a man.#man/NOUN#0.0#0.0\n")
    data = ready(copy, "test")
    assert [s.name for s in data._splits["test"]] == names[1:3]
    batch = next(iter(data.test_dataloader()))
    assert batch["length"].tolist() == [40, 196]
    kept = ready(copy, "test", too_long=None, max_frames=400)
    assert [s.name for s in kept._splits["test"]] == names[1:]


def test_kit_is_shorter_and_has_its_own_features(kit: Path) -> None:
    data = ready(kit, kind=KITMLDataModule, batch_size=2)
    assert (data.info.features, data.info.fps, data.info.joints) == (251, 12.5, 21)
    batch = next(iter(data.train_dataloader()))
    assert batch["motion"].shape[2] == 251 and torch.isfinite(batch["motion"]).all()


def test_draws_depend_on_seed_epoch_and_position_alone(
    humanml3d: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for workers in (0, 2):
        loader = ready(humanml3d, num_workers=workers).train_dataloader()
        runs.append(list(loader))
    assert same(*runs)
    loader = ready(humanml3d).train_dataloader()
    loader.sampler.set_epoch(1)  # type: ignore[attr-defined]
    assert not same(runs[0], list(loader))
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert not same(runs[0], list(ready(humanml3d).train_dataloader()))


def test_training_goes_on_where_it_was_left(humanml3d: Path) -> None:
    whole = list(ready(humanml3d).train_dataloader())
    data = ready(humanml3d)
    data.load_state_dict({"epoch": 0, "samples": 4})
    assert same(whole[1:], list(data.train_dataloader()))


def test_evaluation_is_fixed_unless_it_is_drawn(humanml3d: Path) -> None:
    fixed = [list(ready(humanml3d, "test").test_dataloader()) for _ in range(2)]
    assert same(*fixed)
    drawn = [
        list(ready(humanml3d, "test", evaluation="drawn", replication=r).test_dataloader())
        for r in (0, 0, 1)
    ]
    assert same(drawn[0], drawn[1]) and not same(drawn[0], drawn[2])
    assert (
        "replication 1" in ready(humanml3d, "test", evaluation="drawn", replication=1).info.protocol
    )


def test_a_third_is_shortened_where_asked(humanml3d: Path) -> None:
    plain = ready(humanml3d).train_dataloader()
    short = ready(humanml3d, shorten=True).train_dataloader()
    lengths: list[dict[str, int]] = []
    gone = 0
    for epoch in range(12):
        lengths.clear()
        for loader in (plain, short):
            loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
            lengths.append(
                {n: int(t) for b in loader for n, t in zip(b["name"], b["length"], strict=True)}
            )
        difference = [lengths[0][name] - length for name, length in lengths[1].items()]
        assert set(difference) <= {0, 4}
        gone += sum(d == 4 for d in difference)
    assert 0.2 < gone / (12 * len(difference)) < 0.47


def test_crops_stay_inside_and_all_start_somewhere(humanml3d: Path) -> None:
    data = ready(humanml3d, max_frames=48, pad_to="max_frames")
    for batch in data.train_dataloader():
        assert batch["motion"].shape[1] == 48 and (batch["length"] <= 48).all()


def test_statistics_of_an_evaluator_are_read_or_derived(copy: Path, tmp_path: Path) -> None:
    derived = ready(copy, "validate").info
    assert derived.evaluator_source == "Std / 25"
    ratio = np.array(derived.std) / np.array(derived.evaluator_std)
    np.testing.assert_allclose(ratio[[0, 3, 259, 262]], 25, rtol=1e-5)
    np.testing.assert_allclose(ratio[4:259], 1)
    own = tmp_path / "evaluator" / "meta"
    own.mkdir(parents=True)
    np.save(own / "mean.npy", np.full(263, 2.0))
    np.save(own / "std.npy", np.full(263, 3.0))
    given = ready(copy, "validate", evaluator_statistics=str(own.parent)).info
    assert given.evaluator_mean[5] == 2 and given.evaluator_std[5] == 3
    shutil.copytree(own, copy / "meta")
    assert ready(copy, "validate").info.evaluator_source == str(copy / "meta")
    with pytest.raises(SuiteError, match="no such folder"):
        ready(copy, "validate", evaluator_statistics=str(tmp_path / "no"))


def test_published_data_is_compat_and_modes_do_not_mix(copy: Path) -> None:
    assert ready(copy, "validate").info.mode == "compat"
    with pytest.raises(SuiteError, match="found: mode compat"):
        ready(copy, "validate", mode="repaired")
    (copy / "meta.json").write_text(json.dumps({"mode": "repaired", "fps": 20.0}))
    assert ready(copy, "validate", mode="repaired").info.mode == "repaired"
    (copy / "meta.json").write_text(json.dumps({"mode": "both"}))
    with pytest.raises(SuiteError, match="found: both"):
        ready(copy, "validate")


def test_data_of_another_kind_is_refused(copy: Path, kit: Path, tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="263 finite numbers"):
        ready(kit)
    (copy / "meta.json").write_text(json.dumps({"fps": 30}))
    with pytest.raises(SuiteError, match="found: fps 30"):
        ready(copy)
    (copy / "meta.json").write_text("{")
    with pytest.raises(SuiteError, match="a JSON object"):
        ready(copy)
    (copy / "meta.json").unlink()
    name = (copy / "train.txt").read_text().split()[0]
    np.save(copy / "new_joint_vecs" / f"{name}.npy", np.zeros((60, 251), np.float32))
    with pytest.raises(SuiteError, match=rf"shape \(60, 251\)\nwhere: .*{name}.npy"):
        ready(copy)
    with pytest.raises(SuiteError, match="found: no such folder"):
        ready(tmp_path / "nowhere")
    (copy / "Std.npy").unlink()
    with pytest.raises(SuiteError, match="found: no Std.npy"):
        ready(copy)
    with pytest.raises(SuiteError, match="a multiple of 4"):
        HumanML3DDataModule(max_frames=50)


def test_an_empty_split_is_refused(copy: Path) -> None:
    (copy / "val.txt").write_text("nothing\n")
    with pytest.raises(SuiteError, match=r"none of 1 clips: 1 clips without a file"):
        ready(copy)


def test_changed_files_are_looked_at_again(copy: Path) -> None:
    assert ready(copy, "test").info.counts["test"] == 4
    name = (copy / "test.txt").read_text().split()[0]
    np.save(copy / "new_joint_vecs" / f"{name}.npy", np.full((50, 263), np.nan, np.float32))
    assert ready(copy, "test").info.left_out["test"]["clips with NaN"] == 1


def test_every_id_lists_its_captions_in_order(humanml3d: Path) -> None:
    data = ready(humanml3d, "test")
    folder = data.opened()
    names = folder.names("test")
    from datamodules.motion.clip_index import clip_facts

    samples, left = list_samples(folder, names, clip_facts(folder, names))
    assert samples == data._splits["test"] and not left.counts
    assert len({sample.name for sample in samples}) == len(samples)
