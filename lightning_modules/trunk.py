"""The trunk that tasks share, and what a network with a trunk is.

A trunk maps tokens (B, L, E) to tokens and knows no task. A network around it embeds what its task
reads and reads out what it wants; the trunk is its own, or lent to it by `CoTraining`.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from blocks import BiMamba, Recorded, ResidualBlock, RMSNorm, drop_path_rates
from blocks.errors import SuiteError

# Where a checkpoint of `CoTraining` has its networks, after the prefix `network.`.
_HEADS = "heads."


class MambaTrunk(Recorded, nn.Module):
    """Bidirectional Mamba blocks on tokens of any kind, (B, L, E) to (B, L, E).

    Args:
        dim: Width E.
        depth: Blocks.
        d_state: States per channel of the scans.
        expand: Inner width of the scans as a multiple of E.
        drop_path: Probability of dropping the last block for a sample; it rises from 0 at the
            first.
    """

    def __init__(
        self,
        dim: int = 192,
        depth: int = 12,
        d_state: int = 16,
        expand: float = 2,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(
            ResidualBlock(
                BiMamba(dim, d_state=d_state, expand=expand, backward_dt_init="matched"),
                RMSNorm(dim),
                rate,
            )
            for rate in drop_path_rates(depth, drop_path)
        )
        self.norm = RMSNorm(dim)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Mixes tokens.

        Args:
            x: (B, L, E).
            lengths: Valid tokens per sample, (B,); those beyond take no part.

        Returns:
            (B, L, E).
        """
        residual: Tensor | None = None
        for layer in self.layers:
            x, residual = layer(x, residual, lengths)
        out: Tensor = self.norm(x if residual is None else (residual + x).to(x.dtype))
        return out


class TrunkNetwork(Recorded, nn.Module):
    """Base of the networks around a trunk.

    Args:
        dim: Width E of the tokens.
        trunk: Maps tokens (B, L, E), lengths (B,) or None, to tokens; None waits for one to be
            lent.
    """

    def __init__(self, dim: int, trunk: nn.Module | None) -> None:
        super().__init__()
        self.dim = dim
        self.trunk = trunk
        # In a tuple, past nn.Module: a lent trunk belongs to its owner, in state dicts as well.
        self._lent: tuple[nn.Module, ...] = ()
        if trunk is not None:
            self._check(trunk)

    def borrow(self, trunk: nn.Module) -> None:
        """Works with a trunk that somebody else owns.

        Raises:
            SuiteError: It has one of its own, or the widths differ.
        """
        if self.trunk is not None:
            raise SuiteError(
                expected="a network without a trunk, to share one",
                found=f"{type(self).__name__} with a {type(self.trunk).__name__} of its own",
                where="model.init_args.heads",
                cure="leave its `trunk` out; model.init_args.trunk serves all heads",
            )
        self._check(trunk)
        self._lent = (trunk,)

    def mixed(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Tokens (B, L, E) through the trunk."""
        trunk = self.trunk if self.trunk is not None else next(iter(self._lent), None)
        if trunk is None:
            raise SuiteError(
                expected="a trunk",
                found="none",
                where=f"{type(self).__name__}",
                cure="give init_args.trunk, or train it as a head of CoTraining",
            )
        out: Tensor = trunk(x, lengths)
        return out

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Finds this network and the trunk among those that were trained together.

        Raises:
            SuiteError: None of them is this one, or several are.
        """
        if not any(key.startswith(_HEADS) for key in state):
            return dict(state)
        wanted = {key for key in self.state_dict() if not key.startswith("trunk.")}
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in state.items():
            if key.startswith(_HEADS):
                _, name, rest = key.split(".", 2)
                found.setdefault(name, {})[rest] = value
        own = self.state_dict()
        fitting = [
            name
            for name, entries in found.items()
            if entries.keys() == wanted and all(v.shape == own[k].shape for k, v in entries.items())
        ]
        if len(fitting) != 1:
            raise SuiteError(
                expected=f"one head like this {type(self).__name__} among those trained together",
                found=f"{', '.join(fitting) or 'none'} of {', '.join(found)}",
                where="model.init_args.pretrained",
                cure="build the head as it was trained"
                if not fitting
                else "load one by CoTraining.standalone(name)",
            )
        trunk = {key: value for key, value in state.items() if key.startswith("trunk.")}
        return trunk | found[fitting[0]]

    def _check(self, trunk: nn.Module) -> None:
        width = getattr(trunk, "dim", self.dim)
        if width != self.dim:
            raise SuiteError(
                expected=f"a trunk of width {self.dim}, as {type(self).__name__} has",
                found=f"{width}",
                where="dim of trunk and heads",
                cure="give all of them the same dim",
            )


class JointNetwork(nn.Module):
    """A trunk and the networks that borrow it; the only owner of their weights.

    Args:
        trunk: Shared by all.
        heads: By name, each a `TrunkNetwork`.

    Raises:
        SuiteError: One of them cannot borrow a trunk.
    """

    def __init__(self, trunk: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trunk = trunk
        self.heads = nn.ModuleDict()
        for name, head in heads.items():
            if not isinstance(head, TrunkNetwork):
                raise SuiteError(
                    expected="a network around a trunk, such as TrunkClassifier or TrunkLifter",
                    found=type(head).__name__,
                    where=f"model.init_args.heads.{name}.init_args.network",
                    cure="inherit from lightning_modules.trunk.TrunkNetwork, or train "
                    "this network by itself",
                )
            head.borrow(trunk)
            self.heads[name] = head
