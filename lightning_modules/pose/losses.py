"""Training losses of pose lifting (Walter0807/MotionBERT, TaatiTeam/MotionAGFormer).

All take poses (B, T, 17, 3) in normalised units, joint order H36M-17, and return a mean. Those over
time are 0 for a single frame.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from blocks.errors import SuiteError

_LIMBS = (
    (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (9, 10), (8, 11),
    (11, 12), (12, 13), (8, 14), (14, 15), (15, 16),
)  # fmt: skip
# Pairs of limbs, by their places above.
_ANGLES = (
    (0, 3), (0, 6), (3, 6), (0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 10), (7, 13), (8, 13),
    (10, 13), (7, 8), (8, 9), (10, 11), (11, 12), (13, 14), (14, 15),
)  # fmt: skip
# The slope of arccos grows without bound towards +-1.
_CLAMP = 1e-7


@dataclass(frozen=True)
class PoseLoss:
    """Weights of the loss's terms; a term of weight 0 is not computed.

    Args:
        mpjpe: Mean distance of the joints.
        n_mpjpe: The same after the best scale of each frame.
        velocity: Mean distance of the joints' steps from frame to frame.
        limb_var: Variance of each limb's length over time, of the prediction alone.
        limb_gt: Difference of the limbs' lengths.
        angle: Difference of angles between limbs, radians.
        angle_velocity: Difference of the angles' steps from frame to frame.
    """

    mpjpe: float = 1.0
    n_mpjpe: float = 0.5
    velocity: float = 20.0
    limb_var: float = 0.0
    limb_gt: float = 0.0
    angle: float = 0.0
    angle_velocity: float = 0.0

    def __post_init__(self) -> None:
        if not any(vars(self).values()):
            raise SuiteError(
                expected="a term with a weight",
                found="weights of 0 only",
                where="model.init_args.loss",
                cure="set mpjpe: 1.0",
            )

    def terms(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Each term that has a weight, unweighted."""
        pair = (prediction, target)
        return {name: TERMS[name](*pair) for name, weight in vars(self).items() if weight}

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """The weighted sum of what `terms` returned."""
        return torch.stack([getattr(self, name) * term for name, term in terms.items()]).sum()


def mpjpe(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean Euclidean distance of the joints."""
    mean: Tensor = vector_norm(prediction - target, dim=-1).mean()
    return mean


def n_mpjpe(prediction: Tensor, target: Tensor) -> Tensor:
    """`mpjpe` after scaling each frame's prediction by least squares."""
    return mpjpe(best_scale(prediction, target) * prediction, target)


def best_scale(prediction: Tensor, target: Tensor) -> Tensor:
    """The factor (B, T, 1, 1) of least squares from prediction to target, per frame."""
    norm = prediction.square().sum(-1, keepdim=True).mean(-2, keepdim=True)
    product = (prediction * target).sum(-1, keepdim=True).mean(-2, keepdim=True)
    return product / norm


def velocity(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean distance of the steps from frame to frame."""
    return _over_time(prediction, lambda: mpjpe(prediction.diff(dim=1), target.diff(dim=1)))


def limb_var(prediction: Tensor, target: Tensor) -> Tensor:
    """Unbiased variance of limb lengths over time, of the prediction alone."""
    return _over_time(prediction, lambda: limb_lengths(prediction).var(dim=1).mean())


def limb_gt(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of limb lengths."""
    return (limb_lengths(prediction) - limb_lengths(target)).abs().mean()


def angle(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of limb angles, radians."""
    return (limb_angles(prediction) - limb_angles(target)).abs().mean()


def angle_velocity(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the steps of limb angles."""
    return _over_time(
        prediction,
        lambda: (
            (limb_angles(prediction).diff(dim=1) - limb_angles(target).diff(dim=1)).abs().mean()
        ),
    )


def limb_lengths(pose: Tensor) -> Tensor:
    """Lengths of 16 limbs, (B, T, 16)."""
    length: Tensor = vector_norm(_limbs(pose), dim=-1)
    return length


def limb_angles(pose: Tensor) -> Tensor:
    """Angles of 18 pairs of limbs, (B, T, 18), radians."""
    limbs = torch.nn.functional.normalize(_limbs(pose), dim=-1)
    first, second = (limbs[..., [pair[i] for pair in _ANGLES], :] for i in (0, 1))
    return (first * second).sum(-1).clamp(-1 + _CLAMP, 1 - _CLAMP).arccos()


TERMS = {
    "mpjpe": mpjpe,
    "n_mpjpe": n_mpjpe,
    "velocity": velocity,
    "limb_var": limb_var,
    "limb_gt": limb_gt,
    "angle": angle,
    "angle_velocity": angle_velocity,
}


def _limbs(pose: Tensor) -> Tensor:
    first, second = (pose[..., [limb[i] for limb in _LIMBS], :] for i in (0, 1))
    return first - second


def _over_time(prediction: Tensor, term: Callable[[], Tensor]) -> Tensor:
    return prediction.new_zeros(()) if prediction.shape[1] < 2 else term()
