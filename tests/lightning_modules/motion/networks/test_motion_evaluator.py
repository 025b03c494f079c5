"""The evaluator's networks against the original, and their independence of padding and order."""

import json

import torch
from safetensors.torch import load_file
from torch import Tensor

from lightning_modules.motion import MotionEvaluator
from lightning_modules.motion.networks.motion_evaluator import contrastive_terms
from tests.conftest import GOLDEN

VECTORS = load_file(GOLDEN / "motion" / "evaluator_tiny.safetensors")


def build() -> MotionEvaluator:
    network = MotionEvaluator(23, 16, 20, 14, 12, 12, 15)
    state = {k[3:].replace("/", "."): v for k, v in VECTORS.items() if k.startswith("sd/")}
    network.load_state_dict(state)
    return network.eval()


def close(found: Tensor, name: str) -> None:
    torch.testing.assert_close(found, VECTORS[name].view(found.shape), rtol=0, atol=2e-5)


@torch.no_grad()
def test_embeddings_equal_the_originals() -> None:
    network, motion, lengths = build(), VECTORS["in/motions"], VECTORS["in/m_lens"]
    close(network.movement_encoder(motion[..., :-4]), "mid/movement")
    # The original looks at what follows the last frame; here it counts as 0.
    close(network.motion_encoder(VECTORS["mid/movement"], lengths // 4), "out/motion_embedding")
    close(network.embed_motion(motion, lengths), "out/motion_embedding_zero_padded")
    words = VECTORS["in/word_embs"], VECTORS["in/pos_onehot"], VECTORS["in/cap_lens_descending"]
    close(network.embed_text(*words), "out/text_embedding")


def test_contrastive_terms_equal_the_originals() -> None:
    text, motion = VECTORS["out/text_embedding"], VECTORS["out/motion_embedding"]
    pairs, others = contrastive_terms(text, motion, motion.roll(-1, 0))
    close(pairs, "out/contrastive_pos_margin10")
    close(others, "out/contrastive_neg_margin10_shift1")


@torch.no_grad()
def test_order_and_padding_change_nothing() -> None:
    network, motion, lengths = build(), VECTORS["in/motions"], VECTORS["in/m_lens"]
    order = torch.randperm(len(motion))
    expected = network.embed_motion(motion, lengths)
    torch.testing.assert_close(network.embed_motion(motion[order], lengths[order]), expected[order])
    longer = torch.nn.functional.pad(motion, (0, 0, 0, 8), value=torch.nan)
    shorter = lengths < motion.shape[1]
    assert shorter.any()
    found = network.embed_motion(longer, lengths)
    torch.testing.assert_close(found[shorter], expected[shorter])


def test_the_published_size_has_the_published_keys() -> None:
    expected = json.loads((GOLDEN / "motion" / "manifest_evaluator_keys.json").read_text())
    with torch.device("meta"):
        network = MotionEvaluator()
    for part in ("movement_encoder", "motion_encoder", "text_encoder"):
        state = network.get_submodule(part).state_dict()
        assert {key: list(value.shape) for key, value in state.items()} == expected[part]
