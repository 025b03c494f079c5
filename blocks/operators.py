"""Operators of our own that torch.compile takes whole.

They are registered by the plain calls of torch.library: `torch.library.custom_op` would import the
compiler at the first call, which takes a second of everybody's time.
"""

from collections.abc import Callable
from typing import Any

import torch

from blocks.errors import SuiteError


def define_operator(
    name: str, function: Callable[..., Any], fake: Callable[..., Any]
) -> Callable[..., Any]:
    """Makes an operator for all devices, named `bimamba::name`, and returns how to call it.

    Args:
        name: Its name.
        function: What it does; typed tensors and numbers, its outputs share no memory with them.
        fake: The same signature, giving empty outputs of the right shape, type and layout.
    """
    full = f"bimamba::{name}"
    torch.library.define(full, torch.library.infer_schema(function, mutates_args=()))
    torch.library.impl(full, "CompositeExplicitAutograd", function)
    torch.library.register_fake(full, fake)
    operator: Callable[..., Any] = getattr(torch.ops.bimamba, name)
    return operator


def differentiable(
    name: str, backward: Callable[..., Any], save: Callable[..., Any], cure: str
) -> None:
    """Gives `bimamba::name` a gradient, and `bimamba::name_backward` a clear refusal of one.

    Args:
        name: A defined operator; `name_backward` is the one its gradient is made of.
        backward: Gradients of the inputs from (ctx, *gradients of the outputs).
        save: Keeps what that needs, from (ctx, inputs, output).
        cure: What to do instead of differentiating twice.
    """

    def refuse(ctx: Any, *grads: Any) -> None:
        raise SuiteError(
            expected=f"first derivatives of {name}",
            found="a derivative of its gradient (create_graph=True, a penalty on it, a Hessian)",
            where=f"backward of {name}",
            cure=cure,
        )

    torch.library.register_autograd(f"bimamba::{name}", backward, setup_context=save)
    torch.library.register_autograd(f"bimamba::{name}_backward", refuse)
