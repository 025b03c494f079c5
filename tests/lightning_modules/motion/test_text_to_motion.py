"""The task: its loss, guidance, sampling, checkpoints, and what does not belong together."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor

from blocks import Recorded
from blocks.errors import SuiteError
from lightning_modules.ema import EMA
from lightning_modules.motion import (
    CMDM,
    MDM,
    AdaLNBiMamba,
    CMDMArchitecture,
    EmbeddedText,
    MotionSampler,
    TextToMotion,
)
from lightning_modules.motion.diffusion import masked_mse
from lightning_modules.motion.noise import SampleNoise
from lightning_modules.optimization import Optimizer
from tests.lightning_modules.motion.captioned import CaptionedDataModule, CaptionedInfo, first_batch

SMALL: dict[str, Any] = {
    "in_features": 6, "dim": 16, "num_heads": 2, "dim_feedforward": 32, "text_dim": 12,
}  # fmt: skip
NETWORKS: dict[str, Any] = {
    "bimamba": lambda: CMDM(**SMALL, num_layers=(1, 2), mamba_layers=2),
    "trans_enc": lambda: CMDM(**SMALL, arch="trans_enc", num_layers=(1,)),
    "mdm": lambda: MDM(**SMALL, depth=1),
    "adaln_bimamba": lambda: AdaLNBiMamba(**SMALL, depth=2),
    "fork": lambda: CMDM(**SMALL, num_layers=(1, 1), mamba_layers=1, padding="upstream"),
}
WORDS = CaptionedInfo().words


def task(network: str = "bimamba", **options: Any) -> TextToMotion:
    seed_everything(0, verbose=False)
    made = TextToMotion(
        NETWORKS[network](),
        options.pop("text_encoder", None) or EmbeddedText(12, word_dim=8, depth=1),
        optimizer=Optimizer(lr=3e-3, weight_decay=0.0, lr_scale_batch=None),
        diffusion_steps=50,
        **options,
    )
    made.info = {"max_frames": 12, "mean": [0.0] * 6, "std": [2.0] * 6}
    made.text_encoder.adopt_words(WORDS)
    return made


def trainer(batches: int = 2, **options: Any) -> Trainer:
    """One that tries some batches: no pictures, no files."""
    settings: dict[str, Any] = {"accelerator": "cpu", "logger": False, "fast_dev_run": batches}
    settings |= {"enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**settings | options)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction", "epsilon"])
def test_the_loss_is_that_of_the_prediction_over_valid_frames(prediction: Any) -> None:
    module, batch = task(prediction=prediction), first_batch()
    module.eval()
    batch["motion"][batch["padding"]] = 1e3  # Nobody looks at it.
    loss = validated(module, batch)
    shape = batch["motion"].shape[1:]
    source = SampleNoise(range(8), batch["length"].tolist(), tuple(shape), 0, torch.device("cpu"))
    time, noise = source.steps(50), source()
    noisy = module.diffusion.noisy(batch["motion"], time, noise)
    output = module(noisy, time, batch["caption"], padding_mask=batch["padding"])
    target = module.diffusion.target(batch["motion"], time, noise)
    expected = masked_mse(output, target, batch["padding"]).mean()
    torch.testing.assert_close(loss, expected)


def validated(module: TextToMotion, batch: dict[str, Any]) -> Tensor:
    """Validation loss of a batch."""
    module.log_loss = lambda *_: None  # type: ignore[method-assign]
    with torch.no_grad():
        return module._shared_step(batch, "val")["loss"]


def test_validation_has_the_same_noise_whatever_the_batches() -> None:
    module = task().eval()
    whole, again = (validated(module, first_batch()) for _ in range(2))
    assert torch.equal(whole, again)
    batch = first_batch()
    parts = [validated(module, {k: v[i : i + 2] for k, v in batch.items()}) for i in range(0, 8, 2)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


@pytest.mark.parametrize("network", ["bimamba", "adaln_bimamba"])
def test_a_batch_is_learnt_by_heart_and_captions_decide(network: str) -> None:
    module, batch = task(network, text_erasure=0.1), first_batch(4)
    module.log_loss = lambda *_: None  # type: ignore[method-assign]
    optimizer = torch.optim.AdamW(module.parameters(), 5e-3)
    before = validated(module.eval(), batch)
    module.train()
    for _ in range(100):
        optimizer.zero_grad()
        module._shared_step(batch, "train")["loss"].backward()
        optimizer.step()
    assert validated(module.eval(), batch) < 0.35 * before
    # The first feature tells the verbs apart: -1.5, -0.5, 0.5, 1.5.
    found = module.generate(batch["caption"] * 4, torch.full((16,), 8), seed=3)
    level = found[..., 0].mean(1).view(4, 4).mean(0)
    assert (level.diff() > 0.25).all(), level


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("scheduler", ["DDPM", "UniPC"])
def test_a_motion_does_not_depend_on_those_beside_it(network: str, scheduler: Any) -> None:
    module = task(network, sampler=MotionSampler(scheduler, steps=4))
    captions, lengths = ["a person walks", "a person jumps"], torch.tensor([9, 6])
    both = module.generate(captions, lengths, keys=[5, 7])
    assert both.shape == (2, 9, 6) and not both[1, 6:].any()
    alone = module.generate(captions[1:], lengths[1:], keys=[7])
    torch.testing.assert_close(alone[0], both[1, :6], rtol=1e-4, atol=1e-4)
    other = module.generate(captions[1:], lengths[1:], keys=[8])
    assert not torch.allclose(other, alone)
    assert not torch.allclose(module.generate(captions[1:], lengths[1:], keys=[7], seed=1), alone)


class Counted(torch.nn.Module):
    """A denoiser that says what it is asked: 1 with text, 0 without."""

    in_features, text_dim, contact, sees_padding = 6, 12, "none", False

    def __init__(self) -> None:
        super().__init__()
        self.init_call = {"class_path": "Counted", "init_args": {}}
        self.sizes: list[int] = []

    def forward(self, x: Tensor, time: Tensor, text: Tensor, **given: Tensor) -> Tensor:
        self.sizes.append(len(x))
        return (~given["erase_text"]).float().view(-1, 1, 1).expand_as(x)


@pytest.mark.parametrize(("scale", "passes"), [(1.0, 1), (2.5, 2), (0.0, 1)])
def test_guidance_of_one_is_one_pass_and_others_are_one_batch(scale: float, passes: int) -> None:
    network = Counted()
    module = TextToMotion(network, EmbeddedText(12, word_dim=8, depth=1), diffusion_steps=10)
    sampler = MotionSampler(steps=3, text_scale=scale)
    found = module.generate(["walk"] * 2, torch.tensor([4, 4]), sampler=sampler)
    assert network.sizes == [2 * passes] * 3
    torch.testing.assert_close(found, torch.full_like(found, scale))


def test_sampling_leaves_modes_and_weights_as_they_are() -> None:
    module = task().train()
    module.network.motion_layer.eval()
    modes = [part.training for part in module.modules()]
    first = module.generate(["a person runs"], torch.tensor([8]))
    assert [part.training for part in module.modules()] == modes
    assert torch.equal(module.generate(["a person runs"], torch.tensor([8])), first)
    assert not first.requires_grad


def test_frames_that_are_known_are_continued_and_joined() -> None:
    module, batch = task(sampler=MotionSampler(steps=4)), first_batch(3)
    batch["known"] = module.denormalised(batch.pop("motion"))
    batch["known_mask"] = torch.zeros_like(batch["padding"])
    for i, frames in enumerate(batch["length"].tolist()):
        batch["known_mask"][i, [0, 1, frames - 1]] = True
    found, known = module.predict_step(batch, 0)["features"], batch["known"]
    for i, frames in enumerate(batch["length"].tolist()):
        given, new = [0, 1, frames - 1], list(range(2, frames - 1))
        torch.testing.assert_close(found[i, given], known[i, given])
        assert not torch.isclose(found[i, new], known[i, new]).any()


def test_start_noise_decides_a_deterministic_sampler() -> None:
    module, noise = task(), torch.randn(2, 8, 6)
    captions, lengths = ["a person walks"] * 2, torch.tensor([8, 8])
    first = module.generate(captions, lengths, noise=noise, keys=[1, 2])
    torch.testing.assert_close(module.generate(captions, lengths, noise=noise, keys=[8, 9]), first)
    assert not torch.allclose(first[0], first[1])


@pytest.mark.parametrize("network", NETWORKS)
def test_it_trains_and_its_checkpoint_needs_nothing_else(network: str, tmp_path: Path) -> None:
    module = task(network)
    fitting = trainer(callbacks=[EMA(0.9)])
    fitting.fit(module, CaptionedDataModule(16))
    path = tmp_path / "motion.ckpt"
    fitting.save_checkpoint(path)
    assert torch.load(path, weights_only=True)["info"]["words"] == list(WORDS)
    loaded = TextToMotion.load_from_checkpoint(path)
    assert loaded.text_encoder.words == list(WORDS)  # type: ignore[union-attr]
    captions, lengths = ["a person turns"], torch.tensor([8])
    with torch.no_grad():  # The file's main weights are the average.
        average, _ = fitting.callbacks[0].roles(module)  # type: ignore[attr-defined]
        for name, parameter in module.named_parameters():
            parameter.copy_(average[name])
    found, expected = (m.generate(captions, lengths) for m in (loaded, module))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(loaded.denormalised(torch.zeros(1, 6))[0], torch.arange(1.0, 7))


def test_contacts_are_guided_and_encoded_once() -> None:
    network = CMDM(**SMALL, num_layers=(1, 1), mamba_layers=1, contact="points", planes=(8,) * 4)
    module = TextToMotion(network, EmbeddedText(12, word_dim=8, depth=1), diffusion_steps=20)
    fitting = trainer()
    fitting.fit(module, CaptionedDataModule(16, 4, scenes=True))
    batch, calls = first_batch(2, scenes=True), []
    network.contact_encoder.register_forward_hook(lambda *_: calls.append(1))
    given: dict[str, Any] = {"points": batch["points"], "contact": batch["contact"]}
    one = module.generate(batch["caption"], batch["length"], **given)
    assert len(calls) == 1
    sampler = MotionSampler(contact_scale=3.0)
    guided = module.generate(batch["caption"], batch["length"], sampler=sampler, **given)
    assert not torch.allclose(one, guided)
    with pytest.raises(SuiteError, match="sees scenes"):
        module.generate(batch["caption"], batch["length"])
    with pytest.raises(SuiteError, match="contacts: none"):
        trainer().fit(module, CaptionedDataModule(16))


def test_pretrained_brings_the_text_encoder_and_its_words(tmp_path: Path) -> None:
    first = task()
    fitting = trainer()
    fitting.fit(first, CaptionedDataModule(16))
    path = tmp_path / "motion.ckpt"
    fitting.save_checkpoint(path)
    second = task(pretrained=str(path), fresh=["motion_layer.*"])
    second.text_encoder = EmbeddedText(12, word_dim=8, depth=1)
    second.text_encoder.adopt_words(["a", "crawls", "person", "walks"])
    second.load_pretrained()
    with torch.no_grad():
        texts = [m.eval().text_encoder(["a person walks"])[0] for m in (first, second)]
    torch.testing.assert_close(*texts)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"in_features": 5}, "in_features 6"),
        ({"text_dim": 8}, "text_dim 12"),
    ],
)
def test_what_does_not_fit_is_named_before_training(options: dict[str, Any], what: str) -> None:
    module = TextToMotion(CMDM(**SMALL | options, num_layers=(1, 1)), EmbeddedText(12))
    with pytest.raises(SuiteError, match=what):
        trainer().fit(module, CaptionedDataModule(16))


def test_more_steps_than_the_networks_know_are_refused() -> None:
    module = TextToMotion(NETWORKS["mdm"](), EmbeddedText(12), diffusion_steps=1001)
    with pytest.raises(SuiteError, match="at most 1000 steps"):
        trainer().fit(module, CaptionedDataModule(16))


def test_a_network_that_is_no_denoiser_is_named() -> None:
    class Plain(Recorded, torch.nn.Linear):
        pass

    module = TextToMotion(Plain(2, 2), EmbeddedText(12))
    with pytest.raises(SuiteError, match="Plain without text_dim"):
        trainer().fit(module, CaptionedDataModule(16))


def test_following_fid_needs_an_evaluator() -> None:
    module = task()
    with pytest.raises(SuiteError, match="EarlyStopping watches val/fid"):
        trainer(callbacks=[EarlyStopping("val/fid")]).fit(module, CaptionedDataModule(16))


def test_a_checkpoint_of_other_features_is_refused(tmp_path: Path) -> None:
    module, data = task(), CaptionedDataModule(16)
    fitting = trainer()
    fitting.fit(module, data)
    path = tmp_path / "motion.ckpt"
    fitting.save_checkpoint(path)
    data.info = CaptionedInfo(mode="compat")
    with pytest.raises(SuiteError, match="way of computing features"):
        trainer().validate(task(), data, ckpt_path=path, weights_only=True)
    data.info = CaptionedInfo(std=(1.0,) * 6, words=("other",))
    with pytest.warns(UserWarning, match="another scale"):
        judged = task()
        trainer().validate(judged, data, ckpt_path=path, weights_only=True)
    assert judged.info["words"] == list(WORDS) == judged.text_encoder.words  # type: ignore[union-attr]


def test_the_layers_are_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    trainer(callbacks=[CMDMArchitecture()]).fit(task(), CaptionedDataModule(16))
    said = capsys.readouterr().out
    assert said.count("==================== CMDM Architecture Info ====================") == 1
    assert "\nTotal Layers: 3\n" in said and "  Layer 3: BidirectionalMambaBlock\n" in said


def test_without_statistics_nothing_can_be_denormalised() -> None:
    module = task()
    module.info = {}
    with pytest.raises(SuiteError, match="mean and deviation"):
        module.denormalised(torch.zeros(1, 6))
