"""Any model of timm by its name, as the `network` of a workload: the rivals of ours.

The model is timm's own, with timm's state-dict keys; only its call is recorded, so that a
checkpoint can rebuild it. Images (B, 3, H, W) in, logits (B, num_classes) out.
"""

import difflib
from importlib import import_module
from types import MethodType
from typing import Any

from torch import Tensor, nn

from blocks.errors import SuiteError


def timm_network(
    name: str,
    num_classes: int | None = 1000,
    img_size: int | tuple[int, int] | None = None,
    drop_path: float | None = None,
    fused_attention: bool = True,
    pretrained: bool = False,
    options: dict[str, Any] | None = None,
) -> nn.Module:
    """Builds a model of timm; in YAML `class_path: lightning_modules.vision.timm_network`.

    Args:
        name: Name in timm, such as `deit_tiny_patch16_224`; the published Vim and VMamba models
            have one too.
        num_classes: Outputs of the head; 0 leaves the features, `null` takes as many as the data
            set has classes.
        img_size: Height and width of the images in pixels; `null` = as the name says.
        drop_path: Stochastic depth rate of the last block; `null` = the model's own.
        fused_attention: Whether attention may run as one kernel; `false` writes the matrix of all
            pairs of tokens out, as papers older than such kernels measured it.
        pretrained: Start from timm's weights, which are downloaded.
        options: Further arguments of the model in timm's words, such as `depth` or `global_pool`;
            they win over the ones above.

    Raises:
        SuiteError: timm has no such model, or the model no such option.
    """
    import timm

    # Importing them registers ours.
    from lightning_modules.vision.networks import timm_models, timm_vmamba  # noqa: F401

    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 1, 0.5)
        raise SuiteError(
            expected="a model that timm knows",
            found=name,
            where="network.init_args.name",
            cure=f"did you mean {near[0]}?" if near else "see timm.list_models()",
        )
    own = {"img_size": img_size, "drop_path_rate": drop_path}
    given = {key: value for key, value in own.items() if value is not None} | (options or {})
    try:
        model: nn.Module = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes or 0, **given
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise SuiteError(
            expected=f"arguments of timm's {name}",
            found=str(error),
            where="network.init_args",
            cure="compare with the constructor of that model in timm",
        ) from error
    if not fused_attention:
        _write_attention_out(model, name)
    # A checkpoint brings its own weights: whoever rebuilds the model must not download them again.
    arguments = {
        "name": name,
        "num_classes": num_classes,
        "img_size": list(img_size) if isinstance(img_size, tuple) else img_size,
        "drop_path": drop_path,
        "fused_attention": fused_attention,
        "pretrained": False,
        "options": options,
    }
    model.__dict__["init_call"] = {
        "class_path": f"{__name__}.{timm_network.__name__}",
        "init_args": arguments,
    }
    _join_the_suite(model, num_classes)
    return model


def reset_classifier(self: nn.Module, num_classes: int, *args: Any, **kwargs: Any) -> None:
    """Replaces the head as timm does, on the device of the model, and records it."""
    device = next(self.parameters()).device
    timms: Any = type(self)
    timms.reset_classifier(self, num_classes, *args, **kwargs)
    self.to(device)
    self.__dict__["init_call"]["init_args"]["num_classes"] = num_classes


def adapt_state_dict(self: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of another image size or of an older form, by timm's own rules for the model."""
    rules: Any = getattr(import_module(type(self).__module__), "checkpoint_filter_fn", None)
    return dict(state) if rules is None else dict(rules(dict(state), self))


def _join_the_suite(model: nn.Module, num_classes: int | None) -> None:
    """Adds to the object what our workloads ask a network for; its class stays timm's."""
    if num_classes is None:
        model.__dict__["num_classes"] = None
    for function in (reset_classifier, adapt_state_dict):
        if not type(model).__module__.startswith("lightning_modules."):
            model.__dict__[function.__name__] = MethodType(function, model)
    patches = getattr(model, "patch_embed", None)
    size = getattr(patches, "img_size", None)
    if size is not None and getattr(patches, "strict_img_size", False):
        model.__dict__.setdefault("img_size", tuple(size))


def _write_attention_out(model: nn.Module, name: str) -> None:
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "fused_attn")]
    if not layers:
        raise SuiteError(
            expected="a model whose attention can be written out",
            found=f"{name} without such attention",
            where="network.init_args.fused_attention",
            cure="leave it out",
        )
    for layer in layers:
        layer.fused_attn = False
