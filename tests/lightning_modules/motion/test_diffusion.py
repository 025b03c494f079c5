"""The diffusion process against the original: tables, steps, loops, loss."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.motion.diffusion import Diffusion, kept_steps, masked_mse
from tests.conftest import GOLDEN

Vectors = dict[str, Tensor]


@pytest.fixture(scope="module", params=[50, 1000])
def vectors(request: pytest.FixtureRequest) -> Vectors:
    file = np.load(GOLDEN / "motion" / f"diffusion_T{request.param}.npz")
    return {"steps": torch.tensor(request.param)} | {
        name: torch.from_numpy(file[name]) for name in file.files
    }


def toy(vectors: Vectors) -> Any:
    def network(x: Tensor, step: Tensor) -> Tensor:
        shift = step.float().view(-1, 1, 1) / 1000
        return torch.tanh(x @ vectors["toy_W"] + vectors["toy_b"] + shift)

    return network


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5, relative: float = 0) -> None:
    torch.testing.assert_close(found, expected, rtol=relative, atol=tolerance)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_tables_equal_the_originals(vectors: Vectors, schedule: Any) -> None:
    process = Diffusion(int(vectors["steps"]), schedule)
    for name, table in {
        "betas": process.betas,
        "alphas_cumprod": process.cumulative,
        "posterior_variance": process.posterior_variance,
        "posterior_log_variance_clipped": process.posterior_log_variance,
        "posterior_mean_coef1": process.clean_share,
        "posterior_mean_coef2": process.noisy_share,
    }.items():
        torch.testing.assert_close(table, vectors[f"{schedule}/{name}"], rtol=1e-12, atol=1e-12)


def test_one_step_forth_and_back_equals_the_originals(vectors: Vectors) -> None:
    process, network = Diffusion(int(vectors["steps"])), toy(vectors)
    x0, t = vectors["x0"], vectors["t"]
    noisy = process.noisy(x0, t, vectors["noise"])
    close(noisy, vectors["x_t"])
    close(process.posterior_mean(x0, noisy, t), vectors["post_mean"])
    clean = process.clean(network(noisy, t), noisy, t)
    close(clean, vectors["p_x0"])
    close(process.posterior_mean(clean, noisy, t), vectors["p_mean"])
    noise = vectors["step_noise"]
    close(process.ancestral_step(clean, noisy, t, noise), vectors["p_sample"])
    close(process.ddim_step(clean, noisy, t, noise), vectors["ddim_eta0"])
    close(process.ddim_step(clean, noisy, t, noise, eta=1), vectors["ddim_eta1"])


def test_noise_predicted_is_clean_motion_predicted(vectors: Vectors) -> None:
    process, t = Diffusion(int(vectors["steps"]), prediction="epsilon"), vectors["t"]
    noisy = vectors["x_t"]
    clean = process.clean(toy(vectors)(noisy, t), noisy, t)
    close(clean, vectors["eps_p_x0"], relative=1e-4)
    close(process.posterior_mean(clean, noisy, t), vectors["eps_p_mean"], relative=1e-4)


def test_loops_over_kept_steps_equal_the_originals(vectors: Vectors) -> None:
    steps = int(vectors["steps"])
    specs = {name.split("/")[1] for name in vectors if name.startswith("respaced/")}
    assert specs
    for spec in specs:
        kept = kept_steps(steps, spec)
        assert kept == vectors[f"respaced/{spec}/timestep_map"].tolist()
        process = Diffusion(steps, keep=kept)
        close(process.betas, vectors[f"respaced/{spec}/betas"], 1e-12)
        found = process.sample(toy(vectors), vectors["noise"], ddim=True)
        close(found, vectors[f"respaced/{spec}/ddim_loop_from_noise"], 1e-4)


def test_the_loss_counts_valid_frames_only(vectors: Vectors) -> None:
    mask = vectors["mask_true_is_padding"]
    clean = vectors["p_x0"]
    close(masked_mse(clean, vectors["x0"], mask), vectors["loss_per_sample"])
    spoiled = clean.masked_fill(mask.unsqueeze(-1), torch.inf)
    close(masked_mse(spoiled, vectors["x0"], mask), vectors["loss_per_sample"])
    close(masked_mse(clean, vectors["x0"], None), (clean - vectors["x0"]).square().mean((1, 2)))


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v_prediction"])
def test_a_perfect_network_finds_the_clean_motion(prediction: Any) -> None:
    process = Diffusion(20, prediction=prediction)
    clean, noise = torch.randn(2, 4, 4, 3, dtype=torch.float64).unbind(0)
    for i in range(20):
        step = torch.full((4,), i)
        noisy = process.noisy(clean, step, noise)
        target = process.target(clean, step, noise)
        close(process.clean(target, noisy, step), clean, 1e-7)


def test_sampling_is_a_function_of_its_generator(vectors: Vectors) -> None:
    process = Diffusion(10)
    first, again, other = (
        process.sample(
            toy(vectors), vectors["noise"], generator=torch.Generator().manual_seed(seed)
        )
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_impossible_steps_are_refused() -> None:
    with pytest.raises(SuiteError, match="at least 2"):
        Diffusion(1)
    for spec in ("ddim7777", "2000", "600,600"):
        with pytest.raises(SuiteError, match="at most 1000 steps"):
            kept_steps(1000, spec)
    assert kept_steps(10, "3,2") == [0, 2, 4, 5, 9]
