"""Parts of a network from files of others: what matches, what is refused."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from blocks.errors import SuiteError
from lightning_modules.scannet import EmptyCache, PartialLoad
from tests.lightning_modules.scannet.frames import small_fusion, small_segmenter, small_task


def saved(tmp_path: Path, prefix: str, state: dict[str, torch.Tensor]) -> str:
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": {prefix + key: value for key, value in state.items()}}, path)
    return str(path)


@pytest.mark.parametrize("prefix", ["backbone.", "model.backbone.", ""])
def test_a_backbone_loads_from_any_wrapper(tmp_path: Path, prefix: str) -> None:
    given, own = small_segmenter(), small_segmenter()
    state = {f"net.{k}": v + 1 for k, v in given.backbone.net.state_dict().items()}
    path = saved(tmp_path, prefix, state)
    report = PartialLoad(path, "backbone").load(own)
    assert report.fraction == 1 and torch.equal(own.backbone.net[0].weight, state["net.0.weight"])


def test_a_part_loads_from_a_whole_network_beside_other_parts(tmp_path: Path) -> None:
    given, own = small_segmenter(), small_segmenter()
    path = saved(tmp_path, "", given.state_dict())
    before = own.decoder.out_sem.weight.clone()
    PartialLoad(path, "pool").load(own)
    assert torch.equal(own.pool.pts_proj1[0].weight, given.pool.pts_proj1[0].weight)
    assert torch.equal(own.decoder.out_sem.weight, before)
    PartialLoad(path, "decoder", swap_chair_and_floor=True).load(own)
    order = [0, 2, 1, *range(3, 201)]
    assert torch.equal(own.decoder.out_sem.weight, given.decoder.out_sem.weight[order])


def test_clip_loads_into_the_trunk(tmp_path: Path) -> None:
    given = small_fusion().trunk.state_dict()
    state = {f"visual.{key}": value + 1 for key, value in given.items()}
    state["visual.proj"] = state["logit_scale"] = torch.ones(3)
    network = small_segmenter(small_fusion())
    report = PartialLoad(saved(tmp_path, "", state), "fusion.trunk").load(network)
    assert report.fraction == 1 and network.fusion is not None
    found = network.fusion.trunk.state_dict()["conv1.weight"]
    assert torch.equal(found, given["conv1.weight"] + 1)


def test_too_little_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    given, own = small_segmenter(), small_segmenter()
    state = given.backbone.state_dict()
    state.pop("net.0.weight")
    path = saved(tmp_path, "backbone.", state)
    before = {key: value.clone() for key, value in own.state_dict().items()}
    with pytest.raises(SuiteError, match="at least 90%"):
        PartialLoad(path, "backbone").load(own)
    assert all(torch.equal(value, before[key]) for key, value in own.state_dict().items())
    PartialLoad(path, "backbone", min_match=0.1).load(own)
    with pytest.raises(SuiteError, match="backbone, decoder"):
        PartialLoad(path, "backbon").load(own)


def test_a_fresh_fit_loads_and_a_resumed_one_does_not(tmp_path: Path) -> None:
    task = small_task(fusion=False)
    state = {key: value * 0 + 3 for key, value in task.network.pool.state_dict().items()}
    callback = PartialLoad(saved(tmp_path, "pool.", state), "pool")
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    callback.setup(trainer, task, "test")
    assert (task.network.pool.pts_proj1[0].weight != 3).any()
    callback.setup(trainer, task, "fit")
    assert (task.network.pool.pts_proj1[0].weight == 3).all()


def test_the_cache_is_emptied_only_when_due(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(1))
    callback = EmptyCache(3)
    for index in range(7):
        callback.on_train_batch_end(None, None, None, None, index)  # type: ignore[arg-type]
    assert len(calls) == 2
    with pytest.raises(SuiteError):
        EmptyCache(0)
