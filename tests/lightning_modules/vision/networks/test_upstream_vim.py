"""Upstream's constructor arguments in our words."""

from typing import Any

import pytest

from blocks.errors import SuiteError
from lightning_modules.vision import VisionMamba
from lightning_modules.vision.networks.upstream_vim import vim_arguments

CLASS = {"if_cls_token": True}
MIDDLE = {**CLASS, "use_middle_cls_token": True}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"class_token": "none", "pool": "last", "bimamba_type": "none", "norm": "layer"}),
        ({}, {"pos_embed": False, "divide_out": False, "reverse_tokens": 0.0}),
        ({"if_bimamba": True, "bimamba_type": "v2"}, {"bimamba_type": "v1"}),
        ({"final_pool_type": "mean"}, {"pool": "mean"}),
        ({"final_pool_type": "max"}, {"pool": "max"}),
        ({"final_pool_type": "all"}, {"pool": "all"}),
        (CLASS, {"class_token": "first"}),
        (MIDDLE, {"class_token": "middle"}),
        ({**MIDDLE, "use_double_cls_token": True}, {"class_token": "double"}),
        ({**CLASS, "if_rope": True}, {"rope": "hidden"}),
        ({"if_rope": True, "if_rope_residual": True}, {"rope": "hidden_and_residual"}),
        ({"if_rope_residual": True, "pt_hw_seq_len": 24}, {"rope_side": 24}),
        ({"if_bidirectional": True}, {"paired_layers": True}),
        ({"norm_epsilon": 1e-6, "if_abs_pos_embed": True}, {"norm_eps": 1e-6, "pos_embed": True}),
        ({"flip_img_sequences_ratio": 0.5}, {"reverse_tokens": 0.5}),
        ({"flip_img_sequences_ratio": -1.0}, {"reverse_tokens": 0.0}),
        ({**CLASS, "if_random_cls_token_position": True}, {"random_class_token": True}),
        ({**MIDDLE, "if_random_cls_token_position": True}, {"random_class_token": False}),
        ({"if_random_token_rank": True}, {"shuffle_tokens": True}),
    ],
)
def test_means(given: dict[str, Any], expected: dict[str, Any]) -> None:
    found = vim_arguments(given)
    assert {key: found.get(key) for key in expected} == expected
    assert "rope" in found or not given.get("if_rope")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({**MIDDLE, "if_rope": True}, "if_rope"),
        ({**CLASS, "use_double_cls_token": True, "if_rope": True}, "if_rope"),
        ({**MIDDLE, "final_pool_type": "max"}, "largest of the logits"),
        ({"ssm_cfg": {"d_state": 8}}, "ssm_cfg"),
        ({"embed_dims": 192}, "embed_dim"),
    ],
)
def test_what_upstream_computes_wrongly_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SuiteError, match=said):
        VisionMamba.from_upstream(given)
