"""What retrieval asks of a network: tokens of the patches and one feature of the image.

Any network with timm's two methods will do: `forward_features(images)` gives tokens (B, L, E) or
maps, `forward_head(x, pre_logits=True)` the pooled feature (B, E), and `num_features` is E. Vim,
VMamba, ViT, and timm's networks have them.
"""

from typing import Any

from torch import Tensor, nn

from blocks.errors import SuiteError


def feature_sizes(network: nn.Module) -> tuple[int, int]:
    """Width E of the pooled feature, and that of the patches' tokens.

    Raises:
        SuiteError: The network lacks what retrieval needs.
    """
    needed = ("forward_features", "forward_head", "num_features")
    if lacking := [name for name in needed if not hasattr(network, name)]:
        raise SuiteError(
            expected=f"a network with {', '.join(needed)}",
            found=f"{type(network).__name__} without {', '.join(lacking)}",
            where="model.init_args.network",
            cure="use VisionMamba, VMamba, timm_network, or give your class these three",
        )
    net: Any = network
    # Some of timm's networks widen the feature in their head.
    return getattr(net, "head_hidden_size", None) or net.num_features, net.num_features


def remove_classifier(network: nn.Module) -> None:
    """Takes a classifier off: it would train on nothing, and other heads follow."""
    if getattr(network, "num_classes", 0) != 0:
        reset: Any = network.reset_classifier
        reset(0)


def image_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Runs the network up to its pooled feature.

    Args:
        network: As above.
        images: (B, 3, H, W).

    Returns:
        Pooled feature (B, E) and the patches' tokens (B, M, E'), class tokens left out.
    """
    net: Any = network
    found: Tensor = net.forward_features(images)
    pooled: Tensor = net.forward_head(found, pre_logits=True)
    return pooled, patch_tokens(network, found)


def patch_tokens(network: nn.Module, found: Tensor) -> Tensor:
    """Patches (B, M, E) among what `forward_features` gave.

    A network says where its class tokens are by a method `patch_tokens`, or by timm's
    `num_prefix_tokens`; its maps are (B, E, H, W), or (B, H, W, E) with `output_fmt` NHWC.
    """
    if callable(own := getattr(network, "patch_tokens", None)):
        patches: Tensor = own(found)
        return patches
    if found.dim() == 4:
        channels_last = str(getattr(network, "output_fmt", "NCHW")).endswith("NHWC")
        return found.flatten(1, 2) if channels_last else found.flatten(2).mT
    prefix: int = getattr(network, "num_prefix_tokens", 0)
    return found[:, prefix:]
