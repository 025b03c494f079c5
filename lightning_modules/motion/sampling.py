"""From noise to motion: samplers by name, and motions of which a part is known.

`DDPM` and `DDIM` are steps of `Diffusion` over float64 tables: diffusers' DDIM looks back by a
whole number of steps, and is wrong where steps do not divide evenly (measured: 20 of 50).
`DPMSolver++` and `UniPC` are diffusers', on the same betas.

Axes: B samples, L frames, D features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.motion.diffusion import Diffusion, kept_steps
from lightning_modules.motion.noise import SampleNoise

Scheduler = Literal["DDPM", "DDIM", "DPMSolver++", "UniPC"]
Spacing = Literal["trailing", "leading", "linspace"]
Denoise = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class MotionSampler:
    """How motions are sampled.

    Args:
        scheduler: `DDPM` draws noise at each step; `DDIM`, `DPMSolver++` (multistep) and `UniPC`
            need fewer steps and, with eta 0, only the noise they start from.
        steps: Steps of sampling, at most those of training.
        text_scale: Guidance by the text; 1 = none, and one pass of the network a step.
        contact_scale: Guidance by the scene, for networks that see one.
        eta: Share of the ancestral noise in DDIM, 0 to 1.
        spacing: Which steps of training are taken. `trailing` begins with pure noise; `leading` is
            upstream's `ddimN`, `linspace` its even sections, both for DDPM and DDIM.
    """

    scheduler: Scheduler = "DDIM"
    steps: int = 20
    text_scale: float = 2.5
    contact_scale: float = 1.0
    eta: float = 0.0
    spacing: Spacing = "trailing"


@torch.no_grad()
def sample_motion(
    process: Diffusion,
    sampler: MotionSampler,
    denoise: Denoise,
    noise: SampleNoise,
    *,
    start: Tensor | None = None,
    padding_mask: Tensor | None = None,
    known: Tensor | None = None,
    known_mask: Tensor | None = None,
) -> Tensor:
    """Runs a sampler.

    Args:
        process: Diffusion of the training, with all its steps.
        sampler: Scheduler and steps.
        denoise: From noisy motion (B, L, D) and steps (B,) to the network's output, guided.
        noise: Where each sample's noise comes from.
        start: Noise to start from, (B, L, D); None draws it.
        padding_mask: True at padding, (B, L); clean motion is 0 there.
        known: Motion that is known in part, (B, L, D).
        known_mask: Where, (B, L) or (B, L, D) booleans. The clean motion is set to it at each step.

    Returns:
        Clean motion, (B, L, D).
    """
    if known_mask is not None and known_mask.dim() == 2:
        known_mask = known_mask.unsqueeze(-1)

    def settled(clean: Tensor) -> Tensor:
        if known is not None and known_mask is not None:
            clean = torch.where(known_mask, known, clean)
        return clean if padding_mask is None else clean.masked_fill(padding_mask.unsqueeze(-1), 0)

    x = noise() if start is None else start
    own = sampler.scheduler in ("DDPM", "DDIM")
    solver = _Steps(process, sampler) if own else _Solver(process, sampler, x.device)
    for time in solver.times:
        step = torch.full((len(x),), time, device=x.device)
        clean = settled(process.clean(denoise(x, step).to(x.dtype), x, step))
        x = solver.back(clean, time, x, noise)
    return settled(x)


class _Steps:
    """Our own: DDPM and DDIM."""

    def __init__(self, process: Diffusion, sampler: MotionSampler) -> None:
        kept = spaced_steps(len(process), sampler.steps, sampler.spacing)
        self.process, self.times = process.keeping(kept), kept[::-1]
        self._place = {time: i for i, time in enumerate(kept)}
        self._eta = None if sampler.scheduler == "DDPM" else sampler.eta

    def back(self, clean: Tensor, time: int, x: Tensor, noise: SampleNoise) -> Tensor:
        step = torch.full((len(x),), self._place[time], device=x.device)
        if self._eta is None:
            return self.process.ancestral_step(clean, x, step, noise())
        fresh = noise() if self._eta else torch.zeros_like(x)
        return self.process.ddim_step(clean, x, step, fresh, self._eta)


class _Solver:
    """Of diffusers; it gets clean motion, whatever the network predicts."""

    def __init__(self, process: Diffusion, sampler: MotionSampler, device: torch.device) -> None:
        spaced_steps(len(process), sampler.steps, sampler.spacing)  # Checks their number.
        if sampler.spacing != "trailing":
            raise SuiteError(
                expected="spacing: trailing, for it begins where the noise is pure",
                found=sampler.spacing,
                where=f"sampler.spacing with {sampler.scheduler}",
                cure="leave it out, or use DDIM or DDPM",
            )
        import diffusers

        solvers: dict[str, Any] = {
            "DPMSolver++": diffusers.DPMSolverMultistepScheduler,
            "UniPC": diffusers.UniPCMultistepScheduler,
        }
        self.scheduler = solvers[sampler.scheduler](
            num_train_timesteps=len(process),
            trained_betas=process.betas.numpy(),
            prediction_type="sample",
            timestep_spacing="trailing",
        )
        self.scheduler.set_timesteps(sampler.steps, device=device)
        self.times: list[int] = self.scheduler.timesteps.tolist()

    def back(self, clean: Tensor, time: int, x: Tensor, noise: SampleNoise) -> Tensor:
        out: Tensor = self.scheduler.step(clean, time, x, return_dict=False)[0]
        return out


def spaced_steps(steps: int, count: int, spacing: Spacing) -> list[int]:
    """Which of the training's steps are taken, ascending.

    Args:
        steps: Steps of the training.
        count: How many are taken.
        spacing: See `MotionSampler`.

    Raises:
        SuiteError: There are not so many.
    """
    if not 1 <= count <= steps:
        raise SuiteError(
            expected=f"1 to {steps} steps, as many as the diffusion was trained with at most",
            found=str(count),
            where="sampler.steps",
            cure="20 are usual for DDIM, DPMSolver++ and UniPC",
        )
    if spacing == "linspace":
        return kept_steps(steps, str(count))
    if spacing == "leading":
        return [i * (steps // count) for i in range(count)]
    return [round(steps - i * steps / count) - 1 for i in range(count)][::-1]
