"""How far simple predictors get: the numbers that a lifter must beat to have learnt anything.

P1 in millimetres on all frames of the test split, by the protocol of Human3.6M (mean over actions,
blocked recordings left out). Every predictor sees what a network sees and answers in its units:

    mean pose           the mean of the training poses, whatever is seen
    zero depth          the 2-D joints themselves
    ridge               linear, from the joints of the same frame
    ridge with context  linear, from the joints of seven frames, up to 20 away
    frame MLP           two hidden layers of 256, from the joints of the same frame

The MLP takes 600 steps of 256 frames. All of it is a few seconds on one core, once:
`cached_baselines` keeps the result.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from blocks.files import write_json
from blocks.geometry.cameras import normalise
from datamodules.pose.database import PoseSplit
from datamodules.pose.h36m_names import is_blocked

_CONTEXT = (-20, -10, -5, 0, 5, 10, 20)
_PENALTY = 1e-3  # Times the mean of the Gram matrix's diagonal.
_HIDDEN, _STEPS, _BATCH, _RATE = 256, 600, 256, 3e-3
# Neighbouring frames are alike: more of them change the time, not the result.
_MOST_FRAMES = 25_000


def cached_baselines(
    file: Path, input: Literal["detected", "gt"], train: Callable[[], tuple[PoseSplit, PoseSplit]]
) -> dict[str, float]:
    """What `file` holds for an input; computes and adds it on the first call.

    Args:
        file: JSON beside the data.
        input: Whether 2-D joints are a detector's or the ground truth.
        train: Opens the training and the test split.
    """
    known: dict[str, dict[str, float]] = json.loads(file.read_text()) if file.is_file() else {}
    if input not in known:
        known[input] = reference_baselines(*train(), input)
        write_json(file, known)
    return known[input]


def reference_baselines(
    train: PoseSplit, test: PoseSplit, input: Literal["detected", "gt"]
) -> dict[str, float]:
    """P1 in millimetres of each predictor.

    Args:
        train: To fit on.
        test: To predict; with target and factor.
        input: Whether 2-D joints are a detector's or the ground truth.
    """
    step = -(-len(train) // _MOST_FRAMES)
    x, y = _inputs(train, input), _labels(train)[::step]
    seen, context = x[::step], _with_context(x, train)[::step]
    x_test = _inputs(test, input)
    context_test = _with_context(x_test, test)
    flat = x_test[..., :2] - x_test[:, :1, :2]
    predictions = {
        "mean pose": y.mean(0).expand(len(test), -1, -1),
        "zero depth": torch.cat((flat, torch.zeros_like(flat[..., :1])), -1),
        "ridge": _ridge(seen.flatten(1), y, x_test.flatten(1)),
        "ridge with context": _ridge(context, y, context_test),
        "frame MLP": _mlp(seen.flatten(1), y, x_test.flatten(1)),
    }
    return {name: round(_p1(poses, test), 1) for name, poses in predictions.items()}


def _inputs(split: PoseSplit, input: Literal["detected", "gt"]) -> Tensor:
    """Joints of every frame as a network sees them, (N, 17, 3)."""
    pixels = split.pose[..., :2] if input == "gt" else split.keypoints
    confidence = np.ones(pixels.shape[:2], np.float32)
    if input == "detected" and split.confidence is not None:
        confidence = split.confidence[:]
    xy = normalise(torch.from_numpy(np.array(pixels)), _sizes(split))
    return torch.cat((xy, torch.from_numpy(np.array(confidence))[..., None]), -1)


def _labels(split: PoseSplit) -> Tensor:
    """Normalised poses less their root, (N, 17, 3)."""
    pose = normalise(torch.from_numpy(np.array(split.pose)), _sizes(split))
    return pose - pose[:, :1]


def _sizes(split: PoseSplit) -> Tensor:
    """Width and height for every frame, (N, 2)."""
    sizes = np.array([(video.width, video.height) for video in split.videos], np.float32)
    return torch.from_numpy(sizes.repeat([len(video) for video in split.videos], 0))


def _with_context(x: Tensor, split: PoseSplit) -> Tensor:
    """Joints of neighbouring frames of the same video, (N, features)."""
    frames = np.arange(len(x))
    lengths = [len(video) for video in split.videos]
    first = np.repeat([video.start for video in split.videos], lengths)
    last = np.repeat([video.stop - 1 for video in split.videos], lengths)
    near = [x[(frames + offset).clip(first, last)].flatten(1) for offset in _CONTEXT]
    return torch.cat(near, 1)


def _ridge(x: Tensor, y: Tensor, x_test: Tensor) -> Tensor:
    mean_x, mean_y = x.mean(0), y.flatten(1).mean(0)
    a, b = x - mean_x, y.flatten(1) - mean_y
    gram = (a.T @ a).double()
    gram += _PENALTY * gram.diagonal().mean() * torch.eye(len(gram))
    weight = torch.linalg.solve(gram, (a.T @ b).double()).float()
    poses: Tensor = (x_test - mean_x) @ weight + mean_y
    return poses.view(-1, *y.shape[1:])


def _mlp(x: Tensor, y: Tensor, x_test: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mean, spread = x.mean(0), x.std(0) + 1e-3
        network = nn.Sequential(
            nn.Linear(x.shape[1], _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _HIDDEN), nn.ReLU(),
            nn.Linear(_HIDDEN, y[0].numel()),
        )  # fmt: skip
        optimizer = torch.optim.AdamW(network.parameters(), _RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, _STEPS)
        a = (x - mean) / spread
        for _ in range(_STEPS):
            batch = torch.randint(len(x), (_BATCH,))
            prediction = network(a[batch]).view(-1, *y.shape[1:])
            loss = (prediction - y[batch]).norm(dim=-1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            poses: Tensor = network((x_test - mean) / spread)
    return poses.view(-1, *y.shape[1:])


def _p1(poses: Tensor, test: PoseSplit) -> float:
    """Mean over actions of the mean over frames."""
    assert test.target is not None and test.factor is not None
    width = _sizes(test)[:, 0].view(-1, 1, 1)
    scale = torch.from_numpy(np.array(test.factor)).view(-1, 1, 1)
    target = torch.from_numpy(np.array(test.target))
    millimetres = (poses - poses[:, :1]).double() * width / 2 * scale
    errors = (millimetres - (target - target[:, :1])).norm(dim=-1).mean(1).numpy()
    actions: dict[str, list[Any]] = {}
    for video in test.videos:
        if not is_blocked(video.name):
            actions.setdefault(video.group, []).append(errors[video.start : video.stop])
    return float(np.mean([np.concatenate(parts).mean() for parts in actions.values()]))
