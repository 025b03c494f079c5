"""Classifier-free guidance (Ho and Salimans, 2022) by text and by scene, in one batch a step.

    guided = e(0,0) + s_c [e(0,c) - e(0,0)] + s_t [e(t,c) - e(0,c)]

e is the network with text t and contact c, 0 where they are erased. Scales of 1 leave one pass,
e(t,c); a pass whose weight is 0 is not made.

Axes: B samples, L frames, M text tokens.
"""

from typing import Any

import torch
from torch import Tensor

from lightning_modules.motion.networks.denoiser import Denoiser
from lightning_modules.motion.sampling import Denoise, MotionSampler


def guidance_passes(sampler: MotionSampler, scene: bool) -> dict[tuple[bool, bool], float]:
    """Passes of the network and their weights, which sum to 1; those without weight are left out.

    Args:
        sampler: Scales of the guidance.
        scene: Whether there is a contact condition.

    Returns:
        Weights by (text erased, contact erased).
    """
    text, contact = sampler.text_scale, sampler.contact_scale if scene else 1.0
    if not scene:
        weights = {(False, False): text, (True, False): 1 - text}
    else:
        weights = {
            (False, False): text,
            (True, False): contact - text,
            (True, True): 1 - contact,
        }
    return {passed: weight for passed, weight in weights.items() if abs(weight) > 1e-9}


def guided(
    network: Denoiser,
    sampler: MotionSampler,
    text: tuple[Tensor, Tensor],
    padding: Tensor,
    scene: list[Tensor] | None = None,
) -> Denoise:
    """A network with guidance, as samplers want it.

    Args:
        network: In evaluation mode.
        sampler: Scales of the guidance.
        text: Tokens (B, M, E) and their mask (B, M), True at padding.
        padding: True at padding, (B, L).
        scene: Tokens of the scenes, for networks that see them.

    Returns:
        From noisy motion (B, L, D) and steps (B,) to the guided output (B, L, D), float32.
    """
    passes = guidance_passes(sampler, scene is not None)
    number, size = len(passes), len(padding)

    def repeated(x: Tensor) -> Tensor:
        return x.repeat(number, *[1] * (x.dim() - 1))

    def erased(which: int) -> Tensor:
        flags = [passed[which] for passed in passes]
        return torch.tensor(flags, device=padding.device).repeat_interleave(size)

    conditions: dict[str, Any] = {
        "text": repeated(text[0]),
        "text_mask": repeated(text[1]),
        "padding_mask": repeated(padding),
        "erase_text": erased(0),
    }
    if scene is not None:
        conditions["scene"] = [repeated(level) for level in scene]
        conditions["erase_contact"] = erased(1)

    def denoise(x: Tensor, time: Tensor) -> Tensor:
        parts = network(repeated(x), repeated(time), **conditions).float().chunk(number)
        weighed = [weight * part for weight, part in zip(passes.values(), parts, strict=True)]
        return torch.stack(weighed).sum(0)

    return denoise
