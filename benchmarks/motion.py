"""Text-to-motion denoisers: a training step, and one clip sampled, at 196 and 1,000 frames.

A training step is one clip through loss, backward and AdamW; sampling is 20 steps of DPMSolver++
with guidance, so 20 passes of two. Beside CMDM with 3 Transformer layers and 2 bidirectional Mamba
blocks stand its published Transformer form, that form with as many layers as make it equally large,
and our own Mamba denoiser. Weights are random, which time does not notice.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.settings import DTYPES, Settings, Tell, chosen
from benchmarks.timing import Row, compare, interleave
from lightning_modules.motion.diffusion import Diffusion, masked_mse
from lightning_modules.motion.guidance import guided
from lightning_modules.motion.networks.adaln_bimamba import AdaLNBiMamba
from lightning_modules.motion.networks.cmdm import CMDM
from lightning_modules.motion.networks.denoiser import Denoiser
from lightning_modules.motion.noise import SampleNoise
from lightning_modules.motion.sampling import MotionSampler, sample_motion
from lightning_modules.optimization import Optimizer, build_optimizer, parameter_groups

OURS = "cmdm_bimamba"
MOTION_PEERS = ("cmdm_trans_enc", "trans_enc_as_large", "adaln_bimamba")
LENGTHS = (196, 1000)
_SAMPLER = MotionSampler("DPMSolver++", steps=20, text_scale=2.5)
_ADAMW = Optimizer(lr=1e-4, weight_decay=1e-4)
_STEPS = 50


def measure_motion(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measures training and sampling.

    Args:
        settings: How.
        tell: Hears what is being done.

    Returns:
        `parameters` by network; `lengths`: by number of frames the rows of `training` (a step) and
        `sampling` (a clip).
    """
    names = [OURS, *chosen(settings, MOTION_PEERS)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = {name: _network(name, settings) for name in names}
        lengths: dict[str, dict[str, dict[str, Row]]] = {}
        for frames in (12, 24) if settings.quick else LENGTHS:
            tell(f"{frames:,} frames")
            modes = {"training": _training, "sampling": _sampling}
            lengths[str(frames)] = {
                mode: compare(
                    interleave(
                        {name: make(net, frames, settings) for name, net in networks.items()},
                        settings,
                    ),
                    OURS,
                )
                for mode, make in modes.items()
            }
    sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()}
    return {"parameters": sizes, "lengths": lengths}


def _network(name: str, settings: Settings) -> nn.Module:
    options: dict[str, Any] = {}
    if settings.quick:
        options = {"dim": 32, "num_heads": 4, "dim_feedforward": 64}
    makers: dict[str, Callable[[], nn.Module]] = {
        OURS: lambda: CMDM(arch="bimamba", **options),
        "cmdm_trans_enc": lambda: CMDM(arch="trans_enc", num_layers=(5,), **options),
        "trans_enc_as_large": lambda: CMDM(arch="trans_enc", num_layers=(9,), **options),
        "adaln_bimamba": lambda: AdaLNBiMamba(**options),
    }
    return makers[name]().to(settings.device)


def _training(network: nn.Module, frames: int, settings: Settings) -> Callable[[], object]:
    optimizer = build_optimizer(parameter_groups(network, _ADAMW), _ADAMW.lr, _ADAMW)
    process, dtype = Diffusion(_STEPS), DTYPES[settings.dtype]
    motion, text, text_mask, padding = _inputs(cast(Denoiser, network), frames, settings)
    time = torch.full((1,), _STEPS // 2, device=settings.device)

    def step() -> None:
        network.train()
        noisy = process.noisy(motion, time, torch.randn_like(motion))
        with torch.autocast(motion.device.type, dtype, enabled=dtype != torch.float32):
            clean = network(noisy, time, text, text_mask=text_mask, padding_mask=padding)
        torch.autograd.backward(masked_mse(clean.float(), motion, padding).mean())
        optimizer.step()
        optimizer.zero_grad()

    return step


def _sampling(network: nn.Module, frames: int, settings: Settings) -> Callable[[], object]:
    process = Diffusion(_STEPS)
    denoiser = cast(Denoiser, network)
    motion, text, text_mask, padding = _inputs(denoiser, frames, settings)
    source = SampleNoise([0], [frames], (frames, denoiser.in_features), 0, motion.device)

    def sample() -> Tensor:
        network.eval()
        denoise = guided(denoiser, _SAMPLER, (text, text_mask), padding)
        return sample_motion(process, _SAMPLER, denoise, source, padding_mask=padding)

    return sample


def _inputs(network: Denoiser, frames: int, settings: Settings) -> tuple[Tensor, ...]:
    """A clip (1, L, D), its text (1, 1, C), and the masks of both: there is no padding."""
    device = settings.device
    motion = torch.randn(1, frames, network.in_features, device=device)
    text = torch.randn(1, 1, network.text_dim, device=device)
    masks = (torch.zeros(1, length, dtype=torch.bool, device=device) for length in (1, frames))
    return (motion, text, *masks)
