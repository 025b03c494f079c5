"""Gaussian diffusion of sequences: forward process, posterior, loss, ancestral and DDIM steps.

    q(x_t | x_0) = N(sqrt(abar_t) x_0, (1 - abar_t) I)
    q(x_{t-1} | x_t, x_0) = N(c1_t x_0 + c2_t x_t, v_t I)

Ho et al. (2020), Nichol and Dhariwal (2021), Song et al. (2021), number for number as in
GuyTevet/motion-diffusion-model. Tables are float64, samples keep their type. For other samplers by
name see `lightning_modules.motion.sampling`.

Axes: B samples, L frames, D features, S steps.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from blocks.errors import SuiteError

Prediction = Literal["sample", "epsilon", "v_prediction"]
NoiseSchedule = Literal["cosine", "linear"]


class Diffusion:
    """Tables of a process with S steps, and what follows from them.

    Args:
        steps: S, at least 2.
        schedule: Noise: `cosine` (Nichol and Dhariwal), or `linear` between 1e-4 and 0.02 at 1000
            steps.
        prediction: What the network predicts: clean motion (`sample`), noise, or velocity.
        keep: Steps that are kept, ascending; None keeps all. The network sees original numbers.
    """

    def __init__(
        self,
        steps: int = 1000,
        schedule: NoiseSchedule = "cosine",
        prediction: Prediction = "sample",
        keep: Sequence[int] | None = None,
    ) -> None:
        if steps < 2:
            raise SuiteError(
                expected="at least 2 steps",
                found=str(steps),
                where="diffusion steps",
                cure="1000 for training; fewer when sampling",
            )
        self.prediction: Prediction = prediction
        self.steps, self.schedule = steps, schedule
        betas = cosine_betas(steps) if schedule == "cosine" else linear_betas(steps)
        self.original = torch.arange(steps)
        if keep is not None:
            self.original = torch.tensor(sorted(keep))
            cumulative = torch.cumprod(1 - betas, 0)[self.original]
            betas = 1 - cumulative / _shifted(cumulative, first=1)
        self.betas = betas
        self.cumulative = torch.cumprod(1 - betas, 0)
        before = _shifted(self.cumulative, first=1)
        self.posterior_variance = betas * (1 - before) / (1 - self.cumulative)
        # That of the last step is 0: upstream takes the next one's in its logarithm.
        first = self.posterior_variance[min(1, len(betas) - 1)].view(1)
        variance = torch.cat((first, self.posterior_variance[1:]))
        self.posterior_log_variance = variance.log()
        self.clean_share = betas * before.sqrt() / (1 - self.cumulative)
        self.noisy_share = (1 - before) * (1 - betas).sqrt() / (1 - self.cumulative)

    def __len__(self) -> int:
        """Steps that are left."""
        return len(self.betas)

    def keeping(self, steps: Sequence[int]) -> "Diffusion":
        """The same process over some of its steps, ascending."""
        return Diffusion(self.steps, self.schedule, self.prediction, steps)

    def noisy(self, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """A sample of q(x_t | x_0), from noise of the same shape (B, L, D); step is (B,)."""
        signal, sigma = self._levels(clean, step)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """What the network should predict for a noisy sample."""
        if self.prediction == "sample":
            return clean
        signal, sigma = self._levels(clean, step)
        return noise if self.prediction == "epsilon" else signal * noise - sigma * clean

    def clean(self, output: Tensor, noisy: Tensor, step: Tensor) -> Tensor:
        """Clean motion from the network's output for a noisy sample."""
        if self.prediction == "sample":
            return output
        signal, sigma = self._levels(noisy, step)
        if self.prediction == "epsilon":
            return (noisy - sigma * output) / signal
        return signal * noisy - sigma * output

    def posterior_mean(self, clean: Tensor, noisy: Tensor, step: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0)."""
        return self._at(self.clean_share, step, noisy) * clean + (
            self._at(self.noisy_share, step, noisy) * noisy
        )

    def ancestral_step(self, clean: Tensor, noisy: Tensor, step: Tensor, noise: Tensor) -> Tensor:
        """One step back with the small fixed variance; at step 0 without noise."""
        mean = self.posterior_mean(clean, noisy, step)
        sigma = (0.5 * self._at(self.posterior_log_variance, step, noisy)).exp()
        return mean + (step > 0).to(noisy.dtype).view(_over(noisy)) * sigma * noise

    def ddim_step(
        self, clean: Tensor, noisy: Tensor, step: Tensor, noise: Tensor, eta: float = 0.0
    ) -> Tensor:
        """One step back of DDIM; eta 0 has no noise, eta 1 that of the ancestral step."""
        signal, sigma = self._levels(noisy, step)
        predicted_noise = (noisy - signal * clean) / sigma
        now = self._at(self.cumulative, step, noisy)
        before = self._at(_shifted(self.cumulative, first=1), step, noisy)
        spread = eta * ((1 - before) / (1 - now)).sqrt() * (1 - now / before).sqrt()
        mean = clean * before.sqrt() + (1 - before - spread**2).sqrt() * predicted_noise
        return mean + (step > 0).to(noisy.dtype).view(_over(noisy)) * spread * noise

    @torch.no_grad()
    def sample(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        noise: Tensor,
        *,
        ddim: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Runs all steps back.

        Args:
            denoise: The network: from noisy motion (B, L, D) and original steps (B,) to its output.
            noise: Where to start, (B, L, D).
            ddim: DDIM without noise instead of ancestral steps.
            generator: Of the noise on the way.
        """
        x = noise
        for i in reversed(range(len(self))):
            step = torch.full((len(x),), i, device=x.device)
            original = self.original.to(x.device)[step]
            clean = self.clean(denoise(x, original), x, step)
            fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device)
            x = (
                self.ddim_step(clean, x, step, fresh)
                if ddim
                else self.ancestral_step(clean, x, step, fresh)
            )
        return x

    def _levels(self, x: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        signal = self._at(self.cumulative.sqrt(), step, x)
        return signal, self._at((1 - self.cumulative).sqrt(), step, x)

    def _at(self, table: Tensor, step: Tensor, like: Tensor) -> Tensor:
        return table[step.cpu()].to(like.device, like.dtype).view(_over(like))


def masked_mse(output: Tensor, target: Tensor, padding_mask: Tensor | None) -> Tensor:
    """Mean squared error of each sample over its valid frames, (B,).

    Args:
        output: (B, L, D).
        target: (B, L, D).
        padding_mask: True at padding, (B, L).
    """
    error = (output - target).square()
    if padding_mask is None:
        return error.mean((1, 2))
    error = error.masked_fill(padding_mask.unsqueeze(-1), 0)
    valid = (~padding_mask).sum(1).clamp(min=1)
    return error.sum((1, 2)) / (valid * output.shape[-1])


def cosine_betas(steps: int) -> Tensor:
    """abar(s) = cos^2((s + 0.008) / 1.008 pi / 2), each beta at most 0.999; (S,) float64."""

    def level(s: float) -> float:
        return math.cos((s + 0.008) / 1.008 * math.pi / 2) ** 2

    found = [1 - level((i + 1) / steps) / level(i / steps) for i in range(steps)]
    return torch.tensor(found, dtype=torch.float64).clamp(max=0.999)


def linear_betas(steps: int) -> Tensor:
    """Evenly from 1e-4 to 0.02, times 1000 / S; (S,) float64."""
    scale = 1000 / steps
    return torch.linspace(scale * 1e-4, scale * 0.02, steps, dtype=torch.float64)


def kept_steps(steps: int, spec: str) -> list[int]:
    """Steps that a respaced process keeps, in upstream's language.

    Args:
        steps: Steps of the whole process.
        spec: `ddimN`: N steps an integer apart, from 0. `N` or `A,B,...`: equal sections with so
            many steps each, as even as rounding allows.

    Raises:
        SuiteError: There are not so many steps.
    """
    failed = SuiteError(
        expected=f"at most {steps} steps that divide evenly",
        found=spec,
        where="respacing",
        cure="ddim50 for 50 steps of DDIM, or a number",
    )
    if spec.startswith("ddim"):
        count = int(spec.removeprefix("ddim"))
        for stride in range(1, steps):
            if len(range(0, steps, stride)) == count:
                return list(range(0, steps, stride))
        raise failed
    counts = [int(number) for number in spec.split(",")]
    kept: list[int] = []
    first = 0
    for section, count in enumerate(counts):
        size = steps // len(counts) + (section < steps % len(counts))
        if count > size:
            raise failed
        gap = 1.0 if count <= 1 else (size - 1) / (count - 1)
        kept += [first + round(gap * i) for i in range(count)]
        first += size
    return kept


def _shifted(table: Tensor, first: float) -> Tensor:
    return torch.cat((table.new_tensor([first]), table[:-1]))


def _over(x: Tensor) -> tuple[int, ...]:
    return (-1, *[1] * (x.dim() - 1))
