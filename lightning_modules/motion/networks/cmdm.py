"""CMDM, the denoiser of afford-motion (Wang et al., 2024), and its bidirectional-Mamba forms.

    tokens = [time, text, contact ..., motion ...] + positions
    x0 = motion_layer(body(tokens) at the motion)

    trans_enc     Transformer layers
    trans_dec     Transformer stages, with attention to the scene between them, coarse to fine
    trans_mamba   Transformer layers, then one bidirectional Mamba block
    bimamba       the same with `mamba_layers` blocks, 3 + 2 by default

Keys are those of afford-motion/afford-motion and, for the Mamba forms, of syrelink/afford-motion.
A scan has a direction and a memory: unlike attention it does notice where the conditions stand.
They come first, and are never padded.

Axes: B samples, L frames, D features, E width, N points.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from blocks import BidirectionalMambaBlock, Recorded
from blocks.errors import SuiteError
from blocks.positions import sinusoids
from lightning_modules.motion.networks.point_transformer import PointEncoder

Arch = Literal["trans_enc", "trans_dec", "trans_mamba", "bimamba"]
# Of the diffusion, at most.
STEPS = 1000
_POSITIONS, _POSITION_DROPOUT = 5000, 0.1


class CMDM(Recorded, nn.Module):
    """Predicts clean motion from noisy motion, time, text and scene contact.

    Args:
        in_features: Features D of a frame: 263 in HumanML3D, 251 in KIT-ML.
        dim: Width E.
        arch: Body, see the head of the file.
        num_layers: Layers per stage; what matters is the sum, but for `trans_dec`.
        mamba_layers: Of these, Mamba blocks at the end of `bimamba`.
        num_heads: Attention heads.
        dim_feedforward: Inner width of the MLPs.
        dropout: In Transformer layers and Mamba blocks.
        d_state: States per channel of the Mamba blocks.
        d_conv: Width of their convolutions.
        expand: Their inner width as a multiple of E.
        mamba_drop_path: Probability of dropping a branch of a Mamba block for a sample.
        padding: `exact`: a sample does not notice its padding. `upstream`: scans run through the
            padding, as in the fork's checkpoints.
        mask_motion: Whether attention leaves padding out.
        text_dim: Width of the text embedding.
        time_dim: Width of the sinusoidal embedding of time.
        contact: `points`: scenes of points with contact maps; `none`: no scene, no such tokens.
        planes: Widths of the point encoder's levels.
        contact_features: Features of a point beside its place.
    """

    def __init__(
        self,
        in_features: int = 263,
        dim: int = 512,
        arch: Arch = "bimamba",
        num_layers: Sequence[int] = (3, 2),
        mamba_layers: int = 2,
        num_heads: int = 8,
        dim_feedforward: int = 1024,
        dropout: float = 0.15,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        mamba_drop_path: float = 0.05,
        padding: Literal["exact", "upstream"] = "exact",
        mask_motion: bool = True,
        text_dim: int = 512,
        time_dim: int = 512,
        contact: Literal["none", "points"] = "none",
        planes: Sequence[int] = (32, 64, 128, 256),
        contact_features: int = 6,
    ) -> None:
        super().__init__()
        self.in_features, self.arch, self.contact = in_features, arch, contact
        self.mask_motion, self.text_dim = mask_motion, text_dim
        scans_padding = padding == "upstream" and arch in ("trans_mamba", "bimamba")
        self.sees_padding = scans_padding or not mask_motion
        decoder = arch == "trans_dec"
        self.timestep_embedder = TimeEmbedding(time_dim, dim)
        self.contact_encoder = (
            PointEncoder(3 + contact_features, planes, decoder=decoder)
            if contact == "points"
            else None
        )
        if contact == "points" and not decoder:
            self.contact_adapter = nn.Linear(planes[-1], dim)
        self.language_adapter = nn.Linear(text_dim, dim)
        self.motion_adapter = nn.Linear(in_features, dim)
        self.positional_encoder = Positions(dim)
        layer: dict[str, Any] = {
            "d_model": dim, "nhead": num_heads, "dim_feedforward": dim_feedforward,
            "dropout": dropout, "activation": "gelu", "batch_first": True,
        }  # fmt: skip

        def encoder(depth: int) -> nn.TransformerEncoder:
            first = nn.TransformerEncoderLayer(**layer)
            # Nested tensors would return zeros at padding in evaluation, and only there.
            return nn.TransformerEncoder(first, depth, enable_nested_tensor=False)

        if arch == "trans_enc":
            self.self_attn_layer = encoder(sum(num_layers))
        elif decoder:
            self._build_stages(encoder, layer, num_layers, dim, planes)
        else:
            last = 1 if arch == "trans_mamba" else mamba_layers
            _check_layers(sum(num_layers), last)
            self.encoder_layers = nn.ModuleList(
                nn.TransformerEncoderLayer(**layer) for _ in range(sum(num_layers) - last)
            )
            self.encoder_layers.extend(
                BidirectionalMambaBlock(
                    dim, d_state, d_conv, expand, mlp_ratio=dim_feedforward / dim,
                    dropout=dropout, drop_path=mamba_drop_path, padding=padding,
                )
                for _ in range(last)
            )  # fmt: skip
        self.motion_layer = nn.Linear(dim, in_features)

    def _build_stages(
        self, encoder: Any, layer: dict[str, Any], depths: Sequence[int], dim: int,
        planes: Sequence[int],
    ) -> None:  # fmt: skip
        if self.contact == "none":
            raise SuiteError(
                expected="a scene for the decoder to look at",
                found="contact: none",
                where="CMDM(arch: trans_dec)",
                cure="set contact: points, or use arch: trans_enc or bimamba",
            )
        gaps = range(len(depths) - 1)
        if len(gaps) > len(planes):
            raise SuiteError(
                expected=f"at most {len(planes) + 1} stages, one level of the scene between two",
                found=f"num_layers of {len(depths)} stages",
                where="CMDM(arch: trans_dec)",
                cure="use fewer, longer stages",
            )
        self.self_attn_layers = nn.ModuleList(encoder(depth) for depth in depths)
        # The spelling is upstream's.
        self.kv_mappling_layers = nn.ModuleList(
            nn.Sequential(nn.Linear(planes[-1 - i], dim), nn.LayerNorm(dim)) for i in gaps
        )
        self.cross_attn_layers = nn.ModuleList(nn.TransformerDecoderLayer(**layer) for _ in gaps)

    @classmethod
    def from_upstream(
        cls, config: Mapping[str, Any], padding: Literal["exact", "upstream"] = "upstream"
    ) -> Self:
        """Builds the network from afford-motion's model configuration (`config` of a vector)."""
        names = {
            "input_feats": "in_features", "latent_dim": "dim", "arch": "arch",
            "num_layers": "num_layers", "num_heads": "num_heads", "dropout": "dropout",
            "dim_feedforward": "dim_feedforward", "mamba_layers": "mamba_layers",
            "mamba_d_state": "d_state", "mamba_d_conv": "d_conv", "mamba_expand": "expand",
            "mamba_drop_path": "mamba_drop_path", "mask_motion": "mask_motion",
            "time_emb_dim": "time_dim",
        }  # fmt: skip
        ours = {names[key]: value for key, value in config.items() if key in names}
        contact = config.get("contact_model")
        if contact is not None:
            ours |= {"contact": "points", "planes": contact["planes"]}
        return cls(**ours, padding=padding)

    def architecture(self) -> str:
        """The table of layers that afford-motion's fork prints at the start."""
        layers = [m for m in self.modules() if isinstance(m, _BODY)]
        lines = [f"{'=' * 20} CMDM Architecture Info {'=' * 20}", f"Arch: {self.arch}"]
        lines += [f"Total Layers: {len(layers)}"]
        lines += [f"  Layer {i}: {type(m).__name__}" for i, m in enumerate(layers, start=1)]
        return "\n".join(["", *lines, "=" * 64, ""])

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Leaves out the tables of sinusoids and a text tower that published files may carry."""
        dropped = ("text_model.", "timestep_embedder.pe", "positional_encoder.pe")
        return {key: value for key, value in state.items() if not key.startswith(dropped)}

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        text: Tensor,
        padding_mask: Tensor | None = None,
        text_mask: Tensor | None = None,
        points: Tensor | None = None,
        contact: Tensor | None = None,
        erase_text: Tensor | None = None,
        erase_contact: Tensor | None = None,
        mask_text: Tensor | None = None,
        mask_contact: Tensor | None = None,
        scene: list[Tensor] | None = None,
    ) -> Tensor:
        """Predicts clean motion.

        Args:
            x: Noisy motion, (B, L, D).
            time: Step of the diffusion, (B,), 0 to 999.
            text: Embedding (B, text_dim), or of tokens (B, M, text_dim).
            padding_mask: True at padding, (B, L).
            text_mask: True at padding among text tokens, (B, M).
            points: Places of the scene, (B, N, 3).
            contact: Contact features of the points, (B, N, C).
            erase_text: Samples whose text becomes zeros, (B,) booleans.
            erase_contact: The same for the scene's tokens.
            mask_text: Samples whose text nobody looks at.
            mask_contact: The same for the scene's tokens.
            scene: What `encode_scene` gave, instead of `points` and `contact`.

        Returns:
            Clean motion, (B, L, D); what it holds at padding has no meaning.
        """
        text = text if text.dim() == 3 else text.unsqueeze(1)
        text = _erased(text, erase_text)
        tokens = [self.timestep_embedder(time), self.language_adapter(text)]
        hidden = [_never(tokens[0]), _hidden(tokens[1], mask_text, text_mask)]
        levels = self._scene(points, contact, scene)
        levels = [_erased(level, erase_contact) for level in levels]
        if levels and self.arch != "trans_dec":
            tokens.append(self.contact_adapter(levels[0]))
            hidden.append(_hidden(tokens[-1], mask_contact))
        first = sum(t.shape[1] for t in tokens)
        tokens.append(self.motion_adapter(x))
        hidden.append(_never(tokens[-1]) if padding_mask is None else padding_mask)
        h = self.positional_encoder(torch.cat(tokens, 1))
        mask = torch.cat(hidden, 1) if self.mask_motion else None
        h = self._body(h, mask, levels, mask_contact, frames=x.shape[1])
        out: Tensor = self.motion_layer(h[:, first:])
        return out

    def encode_scene(self, points: Tensor, contact: Tensor) -> list[Tensor]:
        """Tokens of a scene, coarsest level first: once for all steps of sampling.

        Args:
            points: Places, (B, N, 3).
            contact: Contact features, (B, N, C).
        """
        assert self.contact_encoder is not None
        levels: list[Tensor] = self.contact_encoder(points, contact)
        return levels

    def _scene(
        self, points: Tensor | None, contact: Tensor | None, scene: list[Tensor] | None
    ) -> list[Tensor]:
        if self.contact_encoder is None:
            return []
        if scene is not None:
            return scene
        if points is None or contact is None:
            raise SuiteError(
                expected="points and contact, for the network has a scene encoder",
                found="none",
                where="CMDM.forward",
                cure="give data with contacts, or set network.init_args.contact: none",
            )
        return self.encode_scene(points, contact)

    def _body(
        self,
        h: Tensor,
        mask: Tensor | None,
        levels: list[Tensor],
        mask_contact: Tensor | None,
        frames: int,
    ) -> Tensor:
        if self.arch == "trans_enc":
            h = self.self_attn_layer(h, src_key_padding_mask=mask)
        elif self.arch == "trans_dec":
            for i, stage in enumerate(self.self_attn_layers):
                h = stage(h, src_key_padding_mask=mask)
                if i < len(self.cross_attn_layers):
                    memory = self.kv_mappling_layers[i](levels[i])
                    h = self.cross_attn_layers[i](
                        h, memory, tgt_key_padding_mask=mask,
                        memory_key_padding_mask=_hidden(memory, mask_contact),
                    )  # fmt: skip
        else:
            for layer in self.encoder_layers:
                if isinstance(layer, BidirectionalMambaBlock):
                    h = layer(*_for_scan(layer, h, mask, h.shape[1] - frames))
                else:
                    h = layer(h, src_key_padding_mask=mask)
        return h


class TimeEmbedding(nn.Module):
    """Step of the diffusion to a token, (B,) to (B, 1, dim).

    Args:
        time_dim: Width of the sinusoids.
        dim: Width of the token.
    """

    pe: Tensor

    def __init__(self, time_dim: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoids(STEPS, time_dim).unsqueeze(1), persistent=False)
        self.time_embed = nn.Sequential(nn.Linear(time_dim, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, time: Tensor) -> Tensor:
        """Embeds steps."""
        out: Tensor = self.time_embed(self.pe[time])
        return out


class Positions(nn.Module):
    """Adds sinusoids to (B, L, dim), with dropout.

    Args:
        dim: Width.
        dropout: Probability of zeroing an element of the sum.
    """

    pe: Tensor

    def __init__(self, dim: int, dropout: float = _POSITION_DROPOUT) -> None:
        super().__init__()
        self.register_buffer("pe", sinusoids(_POSITIONS, dim), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Adds the first L positions."""
        out: Tensor = self.dropout(x + self.pe[: x.shape[1]])
        return out


_BODY = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, BidirectionalMambaBlock)


def _erased(x: Tensor, which: Tensor | None) -> Tensor:
    return x if which is None else x.masked_fill(which.view(-1, 1, 1), 0)


def _never(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)


def _hidden(x: Tensor, samples: Tensor | None, tokens: Tensor | None = None) -> Tensor:
    """Which tokens nobody looks at, (B, M)."""
    hidden = _never(x) if tokens is None else tokens
    return hidden if samples is None else hidden | samples.view(-1, 1)


def _for_scan(
    block: BidirectionalMambaBlock, h: Tensor, mask: Tensor | None, conditions: int
) -> tuple[Tensor, Tensor | None]:
    """Input and padding of a scan: a condition that is hidden is a step of zeros, not a gap."""
    if mask is None or block.padding == "upstream":
        return h, mask
    hidden, padding = mask.clone(), mask.clone()
    hidden[:, conditions:], padding[:, :conditions] = False, False
    return h.masked_fill(hidden.unsqueeze(-1), 0), padding


def _check_layers(total: int, mamba: int) -> None:
    if not 1 <= mamba <= total:
        raise SuiteError(
            expected=f"1 to {total} Mamba blocks among the layers of num_layers",
            found=f"mamba_layers={mamba}",
            where="CMDM",
            cure="num_layers [3, 2] with mamba_layers 2 is the published form",
        )
