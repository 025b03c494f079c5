"""Samplers against exact solutions, the originals and diffusers; guidance; known parts; noise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.motion import MotionSampler
from lightning_modules.motion.diffusion import Diffusion, kept_steps
from lightning_modules.motion.guidance import guidance_passes
from lightning_modules.motion.noise import SampleNoise, generator
from lightning_modules.motion.sampling import sample_motion, spaced_steps
from tests.conftest import GOLDEN

CPU = torch.device("cpu")
SCHEDULERS: list[Any] = ["DDPM", "DDIM", "DPMSolver++", "UniPC"]
MEAN, DEVIATION = 1.5, 0.3


def best_denoiser(process: Diffusion) -> Callable[[Tensor, Tensor], Tensor]:
    """The perfect network for motions whose numbers are normal: their posterior mean."""

    def denoise(x: Tensor, time: Tensor) -> Tensor:
        level = process.cumulative[time[0]].float()
        gain = DEVIATION**2 * level.sqrt() / (level * DEVIATION**2 + 1 - level)
        clean = MEAN + gain * (x - level.sqrt() * MEAN)
        if process.prediction == "sample":
            return clean
        noise = (x - level.sqrt() * clean) / (1 - level).sqrt()
        return level.sqrt() * noise - (1 - level).sqrt() * clean

    return denoise


def noise_of(samples: int, shape: tuple[int, int] = (8, 8)) -> SampleNoise:
    return SampleNoise(range(samples), [shape[0]] * samples, shape, 0, CPU)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [50, 1000])
@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
def test_samples_have_the_mean_and_spread_of_the_data(
    scheduler: Any, steps: int, prediction: Any
) -> None:
    """Among them 20 of 50 steps, which diffusers' DDIM gets wrong: its mean is 1.37."""
    process = Diffusion(steps, prediction=prediction)
    sampler = MotionSampler(scheduler, steps=20)
    found = sample_motion(process, sampler, best_denoiser(process), noise_of(100))
    assert abs(found.mean() - MEAN) < 0.01
    assert 0.75 * DEVIATION < found.std() < 1.05 * DEVIATION


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 50])
def test_one_step_and_all_steps_are_possible(scheduler: Any, steps: int) -> None:
    process = Diffusion(50)
    sampler = MotionSampler(scheduler, steps=steps)
    found = sample_motion(process, sampler, best_denoiser(process), noise_of(4))
    assert found.isfinite().all() and abs(found.mean() - MEAN) < 0.1


@pytest.mark.parametrize("steps", [50, 1000])
def test_ddim_follows_the_original_loop(steps: int) -> None:
    file = np.load(GOLDEN / "motion" / f"diffusion_T{steps}.npz")
    vectors = {name: torch.from_numpy(file[name]) for name in file.files}

    def toy(x: Tensor, time: Tensor) -> Tensor:
        shift = time.float().view(-1, 1, 1) / 1000
        return torch.tanh(x @ vectors["toy_W"] + vectors["toy_b"] + shift)

    specs = {key.split("/")[1] for key in vectors if key.startswith("respaced/ddim")}
    assert specs
    for spec in specs:
        count = int(spec.removeprefix("ddim"))
        sampler = MotionSampler("DDIM", steps=count, spacing="leading")
        assert spaced_steps(steps, count, "leading") == kept_steps(steps, spec)
        start = vectors["noise"]
        found = sample_motion(Diffusion(steps), sampler, toy, noise_of(len(start)), start=start)
        expected = vectors[f"respaced/{spec}/ddim_loop_from_noise"]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_is_that_of_diffusers_where_steps_divide_evenly(eta: float) -> None:
    import diffusers

    process = Diffusion(1000)
    denoise, source = best_denoiser(process), noise_of(3)
    sampler = MotionSampler("DDIM", steps=20, eta=eta, spacing="leading")
    found = sample_motion(process, sampler, denoise, noise_of(3))
    theirs: Any = diffusers.DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False
    )
    theirs.set_timesteps(20)
    x = source()
    for time in theirs.timesteps:
        clean = denoise(x, time.view(1))
        noise = source() if eta else None
        x = theirs.step(clean, time, x, eta=eta, variance_noise=noise).prev_sample
    torch.testing.assert_close(found, x, rtol=0, atol=1e-4)


def test_a_step_of_ddpm_is_that_of_diffusers() -> None:
    import diffusers

    process, x = Diffusion(1000), torch.randn(4, 8, 8)
    theirs: Any = diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False
    )
    for time in (0, 10, 500, 999):  # From 1 to 5 their float32 variance is off by up to 8e-4.
        step = torch.full((4,), time)
        clean = torch.tanh(x)
        expected = theirs.step(clean, time, x, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        found = process.ancestral_step(clean, x, step, noise)
        torch.testing.assert_close(found, expected.prev_sample, rtol=0, atol=2e-5)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_sample_does_not_depend_on_its_batch(scheduler: Any) -> None:
    process = Diffusion(50)
    sampler = MotionSampler(scheduler, steps=7, eta=0.5)
    lengths, keys = torch.tensor([5, 8, 3]), [4, 11, 2]
    padding = torch.arange(8) >= lengths.unsqueeze(1)
    source = SampleNoise(keys, lengths.tolist(), (8, 6), 0, CPU)
    denoise = best_denoiser(process)
    together = sample_motion(process, sampler, denoise, source, padding_mask=padding)
    for i, length in enumerate(lengths.tolist()):
        alone = SampleNoise([keys[i]], [length], (length, 6), 0, CPU)
        found = sample_motion(process, sampler, denoise, alone)
        torch.testing.assert_close(found[0], together[i, :length])
        assert not together[i, length:].any()


def test_noise_is_a_function_of_seed_and_key() -> None:
    first, again = (SampleNoise([3, 5], [4, 4], (4, 2), 0, CPU) for _ in range(2))
    assert torch.equal(first.steps(1000), again.steps(1000))
    one, two = first(), again()
    assert torch.equal(one, two) and not torch.equal(one[0], one[1])
    assert not torch.equal(first(), one)  # The next draw is another.
    assert not torch.equal(SampleNoise([3, 5], [4, 4], (4, 2), 1, CPU)(), one)
    drawn = torch.randn(100_000, generator=generator(0, 1))
    assert abs(drawn.mean()) < 0.01 and abs(drawn.std() - 1) < 0.01


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_known_parts_stay_and_the_rest_fits(scheduler: Any) -> None:
    process = Diffusion(50)
    # Motions that do not move: what is known of a frame tells all of the others.
    seen: list[Tensor] = []

    def denoise(x: Tensor, time: Tensor) -> Tensor:
        seen.append(x[:, :2])
        level = process.cumulative[time[0]].sqrt().float()
        return (x[:, :2].mean(1, keepdim=True) / level.clamp(min=0.3)).expand_as(x)

    known = torch.full((3, 6, 4), 2.0)
    mask = torch.zeros(3, 6, dtype=torch.bool)
    mask[:, :2] = True
    sampler = MotionSampler(scheduler, steps=20)
    found = sample_motion(
        process, sampler, denoise, noise_of(3, (6, 4)), known=known, known_mask=mask
    )
    assert torch.equal(found[:, :2], known[:, :2])
    assert (found[:, 2:] - 2).abs().mean() < 0.5
    # Where features alone are known.
    features = torch.zeros(3, 6, 4, dtype=torch.bool)
    features[..., 1] = True
    found = sample_motion(
        process, sampler, denoise, noise_of(3, (6, 4)), known=known, known_mask=features
    )
    assert (found[..., 1] == 2).all() and (found[..., 0] != 2).all()


@pytest.mark.parametrize("scene", [False, True])
@pytest.mark.parametrize(("text", "contact"), [(1.0, 1.0), (2.5, 1.0), (1.0, 3.0), (2.5, 3.0)])
def test_guidance_is_the_formula(scene: bool, text: float, contact: float) -> None:
    sampler = MotionSampler(text_scale=text, contact_scale=contact)
    passes = guidance_passes(sampler, scene)
    values = {(False, False): 5.0, (True, False): 7.0, (True, True): 11.0}
    if not scene:  # Without a scene nothing of it can be erased.
        contact, values[True, True] = 1.0, 7.0
    none, scene_only, both = values[True, True], values[True, False], values[False, False]
    expected = none + contact * (scene_only - none) + text * (both - scene_only)
    assert sum(weight * values[key] for key, weight in passes.items()) == pytest.approx(expected)
    assert sum(passes.values()) == pytest.approx(1)
    if text == contact == 1:
        assert list(passes) == [(False, False)]


def test_impossible_samplers_are_refused() -> None:
    for steps in (0, 51):
        with pytest.raises(SuiteError, match="1 to 50 steps"):
            sample_motion(Diffusion(50), MotionSampler(steps=steps), lambda x, _: x, noise_of(1))
    with pytest.raises(SuiteError, match="spacing: trailing"):
        sampler = MotionSampler("UniPC", spacing="leading")
        sample_motion(Diffusion(50), sampler, lambda x, _: x, noise_of(1))
