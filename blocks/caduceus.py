"""The bidirectional mixer of Caduceus (Schiff et al., 2024), with kuleshov-group/caduceus' keys.

    output = mamba_fwd(x) {+ or *} flip(mamba_rev(flip(x)))

Two complete Mambas that by default share `in_proj` and `out_proj`, where most parameters are.
Nothing is ever flipped: `mamba_rev` convolves and scans from the last step to the first.

Shapes: B batch, L time, E outer width `dim`; the rest as in `blocks.mamba`.
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.mamba import UPSTREAM_NAMES, Mamba
from blocks.upstream import renamed


class CaduceusMixer(nn.Module):
    """A Mamba per direction of time, added or multiplied, (B, L, E) to (B, L, E).

    Tied projections are one module under two names. A state dict lists both, as upstream's does,
    and they stay tied through copies, pickles, `load_state_dict(assign=True)` and `to_empty`.

    Args:
        dim: Width E of the input and output.
        d_state: State size N per channel.
        d_conv: Width W of the convolutions.
        expand: Inner width as a multiple of `dim`.
        d_inner: Inner width D; overrides `expand`.
        dt_rank: Rank R of the step-size projections; "auto" is ceil(dim / 16).
        dt_min: Smallest step size at the start.
        dt_max: Largest step size at the start.
        dt_init: How the weights of `dt_proj` start: uniform in +-dt_scale R^-0.5, or constant.
        dt_scale: See `dt_init`.
        dt_init_floor: Lower clamp of the first step sizes.
        conv_bias: Whether the convolutions have a bias.
        bias: Whether `in_proj` and `out_proj` have one.
        strategy: Whether the directions are added or multiplied element by element.
        tie_projections: Whether the directions share `in_proj` and `out_proj`.
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        d_inner: int | None = None,
        dt_rank: int | Literal["auto"] = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: Literal["random", "constant"] = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        strategy: Literal["add", "ew_multiply"] = "add",
        tie_projections: bool = True,
    ) -> None:
        super().__init__()
        if strategy not in ("add", "ew_multiply"):
            raise SuiteError(
                expected="add or ew_multiply",
                found=repr(strategy),
                where="CaduceusMixer(strategy=...)",
                cure="the published Caduceus models use add, the default",
            )
        self.strategy = strategy
        arguments = (
            dim, d_state, d_conv, expand, d_inner, dt_rank, dt_min, dt_max, dt_init, dt_scale,
            dt_init_floor, conv_bias, bias,
        )  # fmt: skip
        self.mamba_fwd = Mamba(*arguments)
        self.mamba_rev = Mamba(*arguments)
        if tie_projections:
            # Upstream shares the parameters; a shared module also survives whatever replaces them.
            self.mamba_rev.in_proj = self.mamba_fwd.in_proj
            self.mamba_rev.out_proj = self.mamba_fwd.out_proj

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> Self:
        """Builds the module from the constructor arguments of caduceus' `BiMambaWrapper`."""
        names = UPSTREAM_NAMES | {
            "bidirectional": None,
            "bidirectional_strategy": "strategy",
            "bidirectional_weight_tie": "tie_projections",
        }
        arguments = renamed(config, names, "CaduceusMixer.from_upstream")
        if not config.get("bidirectional", True):
            raise SuiteError(
                expected="bidirectional=True",
                found="bidirectional=False",
                where="CaduceusMixer.from_upstream",
                cure='build a blocks.Mamba and load the weights without their prefix "mamba_fwd."',
            )
        if arguments.get("strategy", "add") is None:  # upstream's other way to say "add"
            del arguments["strategy"]
        return cls(**arguments)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that must keep their size: the scans' own."""
        own = self.mamba_fwd.no_weight_decay()
        return {f"{module}.{name}" for module in ("mamba_fwd", "mamba_rev") for name in own}

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mixes a whole sequence.

        Args:
            x: Input, (B, L, E).
            lengths: Valid steps per sample, (B,) integers; beyond them the output is 0 and
                `mamba_rev` starts at the last valid step.

        Returns:
            Output, (B, L, E).
        """
        y_fwd: Tensor = self.mamba_fwd(x, lengths)
        y_rev: Tensor = self.mamba_rev(x, lengths, reverse=True)
        return y_fwd + y_rev if self.strategy == "add" else y_fwd * y_rev
