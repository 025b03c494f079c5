"""A trained network that another one learns from: never trained, averaged or stored with it."""

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.weights import load_weights, read_state_dict


class Teacher:
    """Logits of a frozen network. No `nn.Module`, so that no checkpoint or optimiser sees it.

    Args:
        network: Maps images (B, 3, H, W) to logits (B, classes).
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network.requires_grad_(False).eval()
        self.ready = False

    def prepare(self, weights: str | None, classes: int, device: torch.device) -> None:
        """Loads its weights, once, and goes to the student's device.

        Args:
            weights: The file.
            classes: Classes of the student's data, which must be the teacher's.
            device: Where to compute.

        Raises:
            SuiteError: There is no file, it is of another network, or the classes differ.
        """
        if weights is None:
            raise SuiteError(
                expected="weights of a trained teacher",
                found="none",
                where="model.init_args.distillation.teacher_weights",
                cure="name the file, or set distillation.kind: none",
            )
        if not self.ready:
            state = read_state_dict(weights)
            if callable(adapt := getattr(self.network, "adapt_state_dict", None)):
                state = adapt(state)
            rank_zero_info(f"teacher: {load_weights(self.network, state, source=weights)}")
        known = getattr(self.network, "num_classes", classes)
        if known != classes:
            raise SuiteError(
                expected=f"a teacher of {classes} classes, as many as the data has",
                found=f"{known}",
                where="model.init_args.teacher.init_args",
                cure="choose a teacher that was trained on these classes",
            )
        self.network.to(device)
        self.ready = True

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, classes) of images (B, 3, H, W)."""
        logits: Tensor = self.network(images)
        return logits
