"""Vision Mamba (Vim): patches, one class token in the middle, a stack of bidirectional scans.

Follows hustvl/Vim (arXiv 2401.09417) number for number, with its state-dict keys. Images
(B, 3, H, W) become M = rows * columns patch tokens and, by default, a class token at index M // 2:

    x = patches + class token + positions            (B, M + 1, D)
    h, r = block_l(h, r): r += drop_path(h); h = mixer(norm(r))
    logits = head(norm_f(r + drop_path(h))[:, class token])

The residual stream r is float32 under every precision.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn.init import kaiming_uniform_, trunc_normal_, zeros_

from blocks import BiMamba, DropPath, ResidualBlock, RMSNorm, drop_path_rates
from blocks.errors import SuiteError
from blocks.positions import Grid
from lightning_modules.vision.networks.class_tokens import ClassToken
from lightning_modules.vision.networks.patch_embed import Size
from lightning_modules.vision.networks.patch_encoder import PatchEncoder, Pool
from lightning_modules.vision.networks.rotary_positions import RotaryPositions, rotate
from lightning_modules.vision.networks.sequence_order import (
    random_order,
    random_place,
    reversed_order,
)
from lightning_modules.vision.networks.upstream_vim import vim_arguments


class VisionMamba(PatchEncoder):
    """Vim classifier and backbone.

    Args:
        img_size: Height and width of the images in pixels; one number for a square.
        patch_size: Side of a patch in pixels.
        stride: Step between patches in pixels; `null` = `patch_size`, less for overlapping patches.
        dim: Width of a token (192 tiny, 384 small, 768 base).
        depth: Number of blocks.
        num_classes: Outputs of the head; 0 leaves the features, `null` takes as many as the data
            set has classes.
        in_chans: Channels of the images.
        d_state: States per channel of the scan.
        bimamba_type: `v2` two directions with their own convolution and projections (the published
            models), `v1` shared ones, `none` a plain causal Mamba.
        divide_out: Halve the sum of the directions (`div2` in the published names).
        paired_layers: Give the directions to layers instead: the even one of two reads forward,
            the odd one backward, and their outputs add up; for `bimamba_type: none`.
        class_token: `middle` at index M // 2, `first` at 0, `double` at both ends, or `none`.
        pool: What the head gets without class token: the `mean` (`null`), the `last` patch, each
            patch with the `max` of their logits, or `all` of them for logits (B, M, classes).
        pos_embed: Whether the patches get learned positions.
        rope: Rotary positions: `none`, on the `hidden` states before each block, or on
            `hidden_and_residual`. Class tokens are not turned.
        rope_side: Units over which rotary positions spread the patches of a side.
        norm: `rms` (published) or `layer`.
        norm_eps: Added to the norms' mean square.
        drop_path: Stochastic depth rate of the last block, growing linearly from 0.
        drop_rate: Dropout after the position embedding.
        init_layer_scale: Initial scale of each mixer's output; `null` = none.
        random_class_token: In training, put the `first` class token at a random place instead.
        shuffle_tokens: In training, scan the tokens in a random order.
        reverse_tokens: Probability of scanning a training batch in reverse.
        backward_dt_init: `upstream` starts the backward step sizes at 0.69 as every released model
            did, `matched` in [0.001, 0.1] like the forward ones (the stable choice).
        pos_embed_resize: How tables of another size are resized: `middle_aware`, or `upstream`,
            which mistakes patch 0 for the class token as hustvl/Vim does when it fine-tunes.
        pretrained_stride: Stride of weights to start from, where it differs from `stride`; they
            are refused otherwise, as far as the number of their positions betrays it.
        dynamic_img_size: Accept images of any size, resizing the positions at each forward.
        grad_checkpointing: Recompute each block in the backward pass instead of keeping its
            activations: less memory, about a third more time.
    """

    blocks_name = "layers"
    norm_name = "norm_f"

    def __init__(
        self,
        img_size: Size = 224,
        patch_size: int = 16,
        stride: int | None = None,
        dim: int = 192,
        depth: int = 24,
        num_classes: int | None = 1000,
        in_chans: int = 3,
        d_state: int = 16,
        bimamba_type: Literal["none", "v1", "v2"] = "v2",
        divide_out: bool = True,
        paired_layers: bool = False,
        class_token: ClassToken = "middle",
        pool: Pool | None = None,
        pos_embed: bool = True,
        rope: Literal["none", "hidden", "hidden_and_residual"] = "none",
        rope_side: int = 14,
        norm: Literal["rms", "layer"] = "rms",
        norm_eps: float = 1e-5,
        drop_path: float = 0.1,
        drop_rate: float = 0.0,
        init_layer_scale: float | None = None,
        random_class_token: bool = False,
        shuffle_tokens: bool = False,
        reverse_tokens: float = 0.0,
        backward_dt_init: Literal["upstream", "matched"] = "upstream",
        pos_embed_resize: Literal["middle_aware", "upstream"] = "middle_aware",
        pretrained_stride: int | None = None,
        dynamic_img_size: bool = False,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            stride=stride,
            dim=dim,
            num_classes=num_classes,
            in_chans=in_chans,
            class_token=class_token,
            pool=pool,
            drop_rate=drop_rate,
            pos_embed=pos_embed,
            pos_embed_resize=pos_embed_resize,
            pretrained_stride=pretrained_stride,
            dynamic_img_size=dynamic_img_size,
            grad_checkpointing=grad_checkpointing,
        )
        _check(depth, paired_layers, class_token, random_class_token, reverse_tokens)
        self.paired_layers, self.random_class_token = paired_layers, random_class_token
        self.shuffle_tokens, self.reverse_tokens = shuffle_tokens, reverse_tokens
        self.turns_residual = rope == "hidden_and_residual"
        self.rope = (
            None if rope == "none" else RotaryPositions(dim, self.patch_embed.grid, rope_side)
        )
        new_norm: Callable[[int], Any] = partial(
            RMSNorm if norm == "rms" else nn.LayerNorm, eps=norm_eps
        )
        # Block l drops the output of block l - 1, so the rates are shifted by one.
        rates = [0.0, *drop_path_rates(depth, drop_path)]
        self.layers = nn.ModuleList(
            ResidualBlock(
                BiMamba(
                    dim,
                    d_state=d_state,
                    bimamba_type=bimamba_type,
                    divide_out=divide_out,
                    init_layer_scale=init_layer_scale,
                    backward_dt_init=backward_dt_init,
                ),
                new_norm(dim),
                rate,
            )
            for rate in rates[:-1]
        )
        self.drop_path = DropPath(rates[-1])
        self.norm_f = new_norm(dim)
        self._initialise()

    @classmethod
    def from_upstream(cls, config: dict[str, Any]) -> Self:
        """Builds the model from the constructor arguments of hustvl/Vim's VisionMamba."""
        return cls(**vim_arguments(config))

    @property
    def depth(self) -> int:
        """Number of blocks, as `forward_intermediates` counts them: a pair of layers is one."""
        return len(self.layers) // (2 if self.paired_layers else 1)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, blocks and final norm for layer-wise learning rates (timm's contract)."""
        matcher = super().group_matcher(coarse)
        if self.paired_layers:
            # The two of a pair lie equally deep.
            pairs = ((2 * i, 2 * i + 1, i) for i in range(self.depth))
            layers = [(rf"^layers\.(?:{one}|{other})\.", (place,)) for one, other, place in pairs]
            matcher["blocks"] = [*layers, matcher["blocks"][-1]]
        return matcher

    def set_input_size(self, img_size: Size) -> None:
        """Changes the image size for good, resizing the position tables."""
        super().set_input_size(img_size)
        if self.rope is not None:
            self.rope.set_grid(self.patch_embed.grid)

    def adapt_state_dict(
        self, state: dict[str, Tensor], grid: Grid | None = None
    ) -> dict[str, Tensor]:
        """Fits weights of another image size to this model; see `PatchEncoder`."""
        adapted = super().adapt_state_dict(state, grid)
        if self.rope is not None:
            for name, table in self.rope.named_buffers(prefix="rope"):
                if name in adapted and adapted[name].shape != table.shape:
                    adapted[name] = table  # A constant of the grid, and nothing learned.
        return adapted

    def _start(self, images: Tensor) -> "_Stream":
        tokens, order = self._tokens(images), None
        grid = self.patch_embed.grid_of(images)
        length, device = tokens.shape[1], tokens.device
        if self.training and self.random_class_token:
            order = random_place(length).to(device)
            tokens = tokens[:, order]
        if self.pos_embed is not None:
            tokens = tokens + self._resize(self.pos_embed, self.patch_embed.grid, grid)
        tokens = self.pos_drop(tokens)
        for wanted, draw in (
            (self.shuffle_tokens, random_order),
            (self.reverse_tokens > 0, partial(reversed_order, probability=self.reverse_tokens)),
        ):
            if self.training and wanted:
                step = draw(length).to(device)
                tokens, order = tokens[:, step], step if order is None else order[step]
        return _Stream(tokens, None, order, self._rotation(grid, order))

    def _step(self, index: int, stream: "_Stream") -> "_Stream":
        hidden, residual, order, rotation = stream
        if rotation is not None:
            hidden = rotate(hidden, rotation)
            if residual is not None and self.turns_residual:
                residual = rotate(residual, rotation)
        if not self.paired_layers:
            hidden, residual = self._recompute(self.layers[index], hidden, residual)
            return stream._replace(hidden=hidden, residual=residual)
        h, r = self._recompute(self.layers[2 * index], hidden, residual)
        back = None if residual is None else residual.flip(1)
        h_back, r_back = self._recompute(self.layers[2 * index + 1], hidden.flip(1), back)
        return stream._replace(hidden=h + h_back.flip(1), residual=r + r_back.flip(1))

    def _output(self, stream: "_Stream") -> Tensor:
        """The last mixer's output, not the residual stream: what dense heads of Vim read."""
        return _restored(stream.hidden, stream.order)

    def _finish(self, stream: "_Stream") -> Tensor:
        hidden = self.drop_path(stream.hidden)
        residual = stream.residual
        tokens: Tensor = self.norm_f(hidden if residual is None else residual + hidden)
        return _restored(tokens, stream.order)

    def _rotation(self, grid: Grid, order: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines (L, D) in the order of the sequence; class tokens have angle 0."""
        if self.rope is None:
            return None
        count = self.class_tokens.count
        cos, sin = self.rope.rotation(grid)
        cos = self.class_tokens.insert(cos[None], cos.new_ones(1, count, cos.shape[1]))[0]
        sin = self.class_tokens.insert(sin[None], sin.new_zeros(1, count, sin.shape[1]))[0]
        return (cos, sin) if order is None else (cos[order], sin[order])

    def _initialise(self) -> None:
        # hustvl/Vim: LeCun-normal patches, N(0, 0.02) embeddings and head, and mixer outputs
        # shrunk by sqrt(depth), one residual branch a block. The mixers set the rest themselves.
        proj = self.patch_embed.proj
        std = math.sqrt(1 / proj.weight[0].numel()) / 0.87962566103423978
        trunc_normal_(proj.weight, std=std, a=-2 * std, b=2 * std)
        zeros_(self.patch_embed.get_parameter("proj.bias"))
        self._initialise_embedding()
        for layer in self.layers:
            out = layer.get_parameter("mixer.out_proj.weight")
            kaiming_uniform_(out, a=math.sqrt(5))
            with torch.no_grad():
                out.div_(math.sqrt(len(self.layers)))


class _Stream(NamedTuple):
    """Between blocks: tokens and residual (B, L, D), the sequence's order, and angles in it."""

    hidden: Tensor
    residual: Tensor | None
    order: Tensor | None
    rotation: tuple[Tensor, Tensor] | None


def _restored(tokens: Tensor, order: Tensor | None) -> Tensor:
    return tokens if order is None else tokens[:, order.argsort()]


def _check(
    depth: int, paired: bool, class_token: ClassToken, random_token: bool, reverse: float
) -> None:
    if paired and depth % 2:
        raise SuiteError(
            expected="an even depth for paired_layers",
            found=f"{depth}",
            where="network.init_args.depth",
            cure="add or remove a layer; upstream leaves the last of an odd number out in silence",
        )
    if random_token and class_token != "first":
        raise SuiteError(
            expected="class_token first for random_class_token",
            found=class_token,
            where="network.init_args.random_class_token",
            cure="set class_token: first; upstream ignores the option with its token in the middle",
        )
    if not 0 <= reverse <= 1:
        raise SuiteError(
            expected="a probability in 0..1",
            found=f"{reverse}",
            where="network.init_args.reverse_tokens",
            cure="use 0.5 to reverse every other batch, 0 for none",
        )
