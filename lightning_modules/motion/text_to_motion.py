"""Motion from text: a denoiser trained by diffusion, and motions sampled from it.

Batch: motion (B, L, D) float32, normalised; padding (B, L) bool, True at padding; length (B,);
caption list[str]; index (B,), place in the split; with scenes points (B, N, 3), contact (B, N, 6).

    loss = mean over samples of |x0 - network(x_t, t, text)|^2 over valid frames

Recipe: GuyTevet/motion-diffusion-model, afford-motion/afford-motion.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.files import load_foreign
from lightning_modules.motion.agreement import check_facts, check_monitors, check_network
from lightning_modules.motion.architecture_print import CMDMArchitecture
from lightning_modules.motion.diffusion import Diffusion, NoiseSchedule, Prediction, masked_mse
from lightning_modules.motion.generation_evaluation import GenerationEvaluation
from lightning_modules.motion.guidance import guided
from lightning_modules.motion.motion_files import MotionFiles
from lightning_modules.motion.motion_pictures import MotionPictures
from lightning_modules.motion.networks.denoiser import Denoiser
from lightning_modules.motion.noise import SampleNoise
from lightning_modules.motion.sampling import Denoise, MotionSampler, sample_motion
from lightning_modules.motion.text_encoders.cached import CachedText, TextCacheWriter
from lightning_modules.motion.text_encoders.embedded import EmbeddedText
from lightning_modules.motion.text_encoders.text_encoder import TextEncoder
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.workload import Batch, Stage, Workload, run_seed

RECIPE = Optimizer(lr=1e-4, weight_decay=0.0, lr_scale_batch=None)
CONSTANT = Schedule(shape="constant", warmup_epochs=0)
SAMPLER = MotionSampler()
# Evaluations of all runs share their noise, whatever the seed of the run.
_EVALUATION_SEED = 0


class TextToMotion(Workload):
    """Trains a denoiser on captioned motions, and samples from it.

    Args:
        network: A denoiser such as `CMDM`, `MDM` or `AdaLNBiMamba`.
        text_encoder: Who reads captions; `null` = `EmbeddedText`, trained along.
        optimizer: Optimiser and learning-rate rule.
        schedule: Warm-up and decay of the learning rate.
        diffusion_steps: Steps of the diffusion: 1000, or 50 for fast models.
        noise_schedule: `cosine` or `linear`.
        prediction: What the network predicts: clean motion (`sample`), noise, or velocity.
        text_erasure: Share of training samples whose text is erased, for guidance.
        contact_erasure: The same for the scene.
        sampler: How motions are sampled.
        evaluator: File of the evaluator that judges sampled motions, or a folder with it; its FID
            then decides which checkpoint is best. `null` = none, and the loss does.
        pretrained: Weights to start from: a file of ours, of upstream or safetensors.
        pretrained_weights: `model` or its moving average `model_ema`, where the file holds both.
        fresh: Patterns of network entries that `pretrained` need not have, such as `contact_*`.
        compile_network: Compile the network in place with torch.compile.
    """

    monitor = "val/loss"
    mode = "min"

    def __init__(
        self,
        network: nn.Module,
        text_encoder: TextEncoder | None = None,
        optimizer: Optimizer = RECIPE,
        schedule: Schedule = CONSTANT,
        diffusion_steps: int = 1000,
        noise_schedule: NoiseSchedule = "cosine",
        prediction: Prediction = "sample",
        text_erasure: float = 0.1,
        contact_erasure: float = 0.1,
        sampler: MotionSampler = SAMPLER,
        evaluator: str | None = None,
        pretrained: str | None = None,
        pretrained_weights: Literal["model", "model_ema"] = "model",
        fresh: Sequence[str] = (),
        compile_network: bool = False,
    ) -> None:
        super().__init__(
            network, optimizer, schedule, pretrained, pretrained_weights, compile_network
        )
        self.text_encoder = text_encoder or EmbeddedText(getattr(network, "text_dim", 512))
        self.diffusion = Diffusion(diffusion_steps, noise_schedule, prediction)
        self.text_erasure, self.contact_erasure = text_erasure, contact_erasure
        self.sampler, self.evaluator, self.fresh = sampler, evaluator, tuple(fresh)
        if evaluator is not None:
            self.monitor = "val/fid"  # type: ignore[misc]

    @property
    def denoiser(self) -> Denoiser:
        """The network, by what it is asked for."""
        return cast(Denoiser, self.network)

    @property
    def scenes(self) -> bool:
        """Whether the network sees scenes."""
        return self.denoiser.contact == "points"

    def forward(self, x: Tensor, time: Tensor, captions: list[str], **conditions: Any) -> Tensor:
        """The network's output (B, L, D) for noisy motion, steps (B,) and captions."""
        text, text_mask = self.text_encoder(captions)
        return self.denoiser(x, time, text, text_mask=text_mask, **conditions)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Motions for captions: features (B, L, D) in the data's units, and their length (B,).

        Where the batch has `known` (B, L, D), in the data's units, and `known_mask` (B, L), these
        frames are kept and the others fitted to them.
        """
        known = batch.get("known")
        motion = self.generate(
            batch["caption"],
            batch["length"],
            points=batch.get("points"),
            contact=batch.get("contact"),
            known=None if known is None else self.normalised(known),
            known_mask=batch.get("known_mask"),
            keys=batch["index"],
            seed=run_seed(),
        )
        return {"features": self.denormalised(motion), "length": batch["length"]}

    def configure_callbacks(self) -> list[Callback]:
        """Scores, pictures and files, unless the trainer has its own or only tries things."""
        if getattr(self.trainer, "fast_dev_run", False):
            return []
        own: list[Callback] = [CMDMArchitecture()]
        if isinstance(self.text_encoder, CachedText):
            own.append(TextCacheWriter())
        if self.trainer.state.fn == TrainerFn.PREDICTING:
            own.append(MotionFiles())
        else:
            own.append(MotionPictures())
            own += [GenerationEvaluation(self.evaluator)] if self.evaluator else []
        present = {type(callback) for callback in getattr(self.trainer, "callbacks", ())}
        return [callback for callback in own if type(callback) not in present]

    def adopt_data(self, info: dict[str, Any]) -> None:
        """Hands the words of the training captions to the text encoder."""
        self.text_encoder.adopt_words(info.get("words") or ())

    def check_data(self) -> None:
        """Data, text encoder, network and callbacks must belong together.

        Raises:
            SuiteError: They do not.
        """
        self.text_encoder.prepare()
        check_network(self.network, self.text_encoder, len(self.diffusion), self.info)
        check_monitors(getattr(self._trainer, "callbacks", ()), self.evaluator)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of other features; words stay those it was trained with."""
        trained = checkpoint.get("info", {})
        check_facts(trained, self.info)
        super().on_load_checkpoint(checkpoint)
        self.info["words"] = trained.get("words", [])

    def fresh_entries(self) -> tuple[str, ...]:
        """What `fresh` names."""
        return self.fresh

    def load_pretrained(self) -> None:
        """Loads the network and, from a file of ours, the text encoder that was trained with it."""
        path = self.pretrained
        super().load_pretrained()
        if path is None or not isinstance(self.text_encoder, EmbeddedText):
            return
        content = load_foreign(path)
        place = "current_model_state" if self.pretrained_weights == "model" else "state_dict"
        if isinstance(content, dict) and "state_dict" in content and "info" in content:
            entries = content.get(place) or content["state_dict"]
            prefix = "text_encoder."
            state = {k.removeprefix(prefix): v for k, v in entries.items() if k.startswith(prefix)}
            if "table.weight" in state:
                found = self.text_encoder.load_pretrained(state, content["info"].get("words", ()))
                rank_zero_info(f"pretrained text encoder: {found}")

    def _shared_step(self, batch: Batch, stage: Stage) -> dict[str, Tensor]:
        motion, padding = batch["motion"], batch["padding"]
        conditions: dict[str, Any] = {"padding_mask": padding}
        if self.scenes:
            conditions |= {"points": batch["points"], "contact": batch["contact"]}
        if stage == "train":
            time = torch.randint(len(self.diffusion), (len(motion),), device=motion.device)
            noise = torch.randn_like(motion)
            conditions |= self._erasures(motion)
        else:
            lengths, shape = batch["length"].tolist(), (motion.shape[1], motion.shape[2])
            keys = batch["index"].tolist()
            source = SampleNoise(keys, lengths, shape, _EVALUATION_SEED, motion.device)
            time, noise = source.steps(len(self.diffusion)), source()
        noisy = self.diffusion.noisy(motion, time, noise)
        output = self(noisy, time, batch["caption"], **conditions).float()
        target = self.diffusion.target(motion, time, noise)
        loss = masked_mse(output, target, padding).mean()
        self.log_loss(loss, stage, len(motion))
        return {"loss": loss}

    def _erasures(self, motion: Tensor) -> dict[str, Tensor]:
        def drawn(share: float) -> Tensor:
            return torch.rand(len(motion), device=motion.device) < share

        erased = {"erase_text": drawn(self.text_erasure)}
        return erased | {"erase_contact": drawn(self.contact_erasure)} if self.scenes else erased

    def generate(
        self,
        captions: list[str],
        lengths: Tensor,
        *,
        noise: Tensor | None = None,
        sampler: MotionSampler | None = None,
        points: Tensor | None = None,
        contact: Tensor | None = None,
        known: Tensor | None = None,
        known_mask: Tensor | None = None,
        keys: Tensor | Sequence[int] | None = None,
        seed: int = 0,
    ) -> Tensor:
        """Samples motions.

        A motion depends on its own caption, length, key and the seed, not on those beside it.

        Args:
            captions: B texts.
            lengths: Frames of each motion, (B,).
            noise: Where to start, (B, L, D); None draws it.
            sampler: Scheduler, steps and guidance; None takes the module's.
            points: Places of the scenes, (B, N, 3), for networks that see them.
            contact: Their contact features, (B, N, C).
            known: Motions of which a part is given, (B, L, D), normalised.
            known_mask: Which part, (B, L) or (B, L, D) booleans.
            keys: A number per sample that its noise comes from; None counts from 0.
            seed: Of all noise.

        Returns:
            Normalised motions, (B, L, D) with L the longest length, 0 behind each one's length.
        """
        sampler, device = sampler or self.sampler, self.device
        lengths = lengths.to(device)
        longest = int(lengths.max())
        frames = max(longest, self._canvas())
        numbers = list(range(len(captions))) if keys is None else [int(key) for key in keys]
        # A network that looks at padding saw noise there in training.
        rows = [frames] * len(captions) if self._canvas() else lengths.tolist()
        shape = (frames, self.denoiser.in_features)
        source = SampleNoise(numbers, rows, shape, seed, device)
        padding = torch.arange(frames, device=device) >= lengths.unsqueeze(1)
        with _evaluating(self), torch.no_grad():
            motion = sample_motion(
                self.diffusion,
                sampler,
                self._guided(sampler, captions, padding, points, contact),
                source,
                start=_fitted(noise, frames, device),
                padding_mask=padding,
                known=_fitted(known, frames, device),
                known_mask=_fitted(known_mask, frames, device),
            )
        return motion[:, :longest]

    def _guided(
        self,
        sampler: MotionSampler,
        captions: list[str],
        padding: Tensor,
        points: Tensor | None,
        contact: Tensor | None,
    ) -> Denoise:
        """The network for these captions and scenes, with guidance."""
        scene = None
        if self.scenes:
            if points is None or contact is None:
                raise SuiteError(
                    expected="points and contact, for the network sees scenes",
                    found="none",
                    where="TextToMotion.generate",
                    cure="give both, or use a model that was trained with contact: none",
                )
            scene = self.denoiser.encode_scene(points.to(self.device), contact.to(self.device))
        text = self.text_encoder(captions)
        return guided(self.denoiser, sampler, text, padding, scene)

    def normalised(self, features: Tensor) -> Tensor:
        """Features (..., D) in the data's units as the network sees them."""
        mean, std = self._statistics(features.device)
        return (features - mean) / std

    def denormalised(self, motion: Tensor) -> Tensor:
        """Normalised motions (..., D) in the data's units."""
        mean, std = self._statistics(motion.device)
        return motion * std + mean

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if not self.info.get("mean"):
            raise SuiteError(
                expected="mean and deviation of the training data",
                found="none, neither in the data nor in a checkpoint",
                where="TextToMotion",
                cure="give a checkpoint of this suite with --ckpt_path",
            )
        mean, std = (torch.tensor(self.info[name], device=device) for name in ("mean", "std"))
        return mean, std

    def _canvas(self) -> int:
        """Frames to which all motions are padded, for networks that look at padding; else 0."""
        return int(self.info.get("max_frames", 196)) if self.denoiser.sees_padding else 0


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, with each part back in its own mode afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _fitted(x: Tensor | None, frames: int, device: torch.device) -> Tensor | None:
    """(B, L, ...) cut or filled up with zeros to a number of frames."""
    if x is None:
        return None
    x = x[:, :frames].to(device)
    return F.pad(x, (*[0, 0] * (x.dim() - 2), 0, frames - x.shape[1]))
