"""Do data, text encoder, network, callbacks and checkpoint of text-to-motion belong together?"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from blocks.errors import SuiteError
from lightning_modules.motion.networks.adaln_bimamba import AdaLNBiMamba
from lightning_modules.motion.networks.cmdm import CMDM, STEPS
from lightning_modules.motion.networks.denoiser import check_denoiser
from lightning_modules.motion.networks.mdm import MDM
from lightning_modules.motion.text_encoders.text_encoder import TextEncoder

# What a motion's numbers mean, beside their mean and deviation.
_FACTS = {
    "features": "features of a frame",
    "skeleton": "skeleton",
    "fps": "frames per second",
    "mode": "way of computing features",
}
_JUDGED = ("fid", "r_precision", "mm_dist", "diversity", "multimodality")


def check_network(
    network: nn.Module, encoder: TextEncoder, steps: int, info: Mapping[str, Any]
) -> None:
    """Widths and conditions of the network must be those of data and text encoder.

    Args:
        network: The denoiser.
        encoder: The text encoder, prepared.
        steps: Of the diffusion.
        info: Facts about the data.

    Raises:
        SuiteError: They differ.
    """
    check_denoiser(network)
    net: Any = network
    place = "model.init_args.network.init_args"
    features = info.get("features")
    if features and features != net.in_features:
        raise SuiteError(
            expected=f"in_features {features}, as the data has",
            found=f"in_features {net.in_features} in the network",
            where=f"{place}.in_features",
            cure=f"set it to {features}: HumanML3D has 263 features, KIT-ML 251",
        )
    if encoder.dim != net.text_dim:
        raise SuiteError(
            expected=f"text_dim {encoder.dim}, as {type(encoder).__name__} gives",
            found=f"text_dim {net.text_dim} in the network",
            where=f"{place}.text_dim",
            cure=f"set it to {encoder.dim}",
        )
    if steps > STEPS and isinstance(network, CMDM | MDM | AdaLNBiMamba):
        raise SuiteError(
            expected=f"at most {STEPS} steps, for which the networks have a table",
            found=str(steps),
            where="model.init_args.diffusion_steps",
            cure="1000 is usual, and 50 enough for small models",
        )
    if net.contact == "points" and info.get("contact") == "none":
        raise SuiteError(
            expected="data with contacts, for the network sees scenes",
            found="contacts: none",
            where="data.init_args.contacts",
            cure="set it to floor or files, or network.init_args.contact to none",
        )


def check_monitors(callbacks: Sequence[Any], evaluator: str | None) -> None:
    """A callback that follows a score of the evaluator needs one, long before the first score.

    Raises:
        SuiteError: There is none.
    """
    for callback in callbacks:
        watched = str(getattr(callback, "monitor", None) or "")
        if evaluator is None and watched.rpartition("/")[2].startswith(_JUDGED):
            raise SuiteError(
                expected=f"an evaluator, for {type(callback).__name__} watches {watched}",
                found="evaluator: null",
                where="model.init_args.evaluator",
                cure="name its file (finest.tar), train one, or let the callback watch val/loss",
            )


def check_facts(trained: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """A checkpoint understands motions of the kind it was trained on.

    Args:
        trained: Facts about the data of the checkpoint.
        given: Facts about the present data.

    Raises:
        SuiteError: Their features mean other things.
    """
    for name, words in _FACTS.items():
        before, now = trained.get(name), given.get(name)
        if before and now and before != now:
            raise SuiteError(
                expected=f"data with the {words} of the checkpoint, {before}",
                found=str(now),
                where="bimamba with this checkpoint and this data",
                cure="use the data it was trained on, or train on the new one",
            )
    for name in ("mean", "std"):
        before, now = trained.get(name), given.get(name)
        if before and now and not torch.allclose(torch.tensor(before), torch.tensor(now), 1e-3):
            rank_zero_warn(
                f"The data's {name} differs from that of the checkpoint's training data: motions "
                "reach the network on another scale. Give the training data's Mean.npy and Std.npy."
            )
