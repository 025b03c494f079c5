"""What plain encoders of image patches share: tokens in, a stack of blocks, a head; timm's methods.

Images (B, C, H, W) become M = rows * columns patch tokens and class tokens in between:

    x = patches + class tokens + positions      (B, L, D)
    x = block_l(x)                              depth times
    logits = head(norm(x)[class token])         or of the patches' mean

Plain means one resolution throughout: ViT, Vim, gated attention.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.init import trunc_normal_, zeros_
from torch.utils.checkpoint import checkpoint

from blocks import Recorded
from blocks.errors import SuiteError
from blocks.positions import Grid
from lightning_modules.vision.networks.class_tokens import ClassToken, ClassTokens
from lightning_modules.vision.networks.intermediates import chosen_indices
from lightning_modules.vision.networks.patch_embed import PatchEmbed, Size
from lightning_modules.vision.networks.trained_grid import check_stride, likely_grid

Pool = Literal["mean", "last", "max", "all"]


class PatchEncoder(Recorded, nn.Module):
    """Base of the plain encoders; a subclass adds `blocks` and `norm` of its kind.

    Args:
        img_size: Height and width of the images in pixels; one number for a square.
        patch_size: Side of a patch in pixels.
        stride: Step between patches in pixels; `null` = `patch_size`, less for overlapping patches.
        dim: Width of a token.
        num_classes: Outputs of the head; 0 leaves the features, `null` takes as many as the data
            set has classes.
        in_chans: Channels of the images.
        class_token: `middle` at index M // 2, `first` at 0, `double` at both ends, or `none`.
        pool: What the head gets without class token: the `mean` (`null`), the `last` patch, each
            patch with the `max` of their logits, or `all` of them for logits (B, M, classes).
        drop_rate: Dropout after the position embedding.
        pos_embed: Whether the patches get learned positions.
        pos_embed_resize: How tables of another size are resized: `middle_aware`, or `upstream`,
            which mistakes patch 0 for the class token as hustvl/Vim does when it fine-tunes.
        pretrained_stride: Stride of weights to start from, where it differs from `stride`; they
            are refused otherwise, as far as the number of their positions betrays it.
        dynamic_img_size: Accept images of any size, resizing the positions at each forward.
        grad_checkpointing: Recompute each block in the backward pass instead of keeping its
            activations: less memory, about a third more time.
    """

    # Attributes that hold the blocks and the last norm, in the words of the upstream project.
    blocks_name: ClassVar[str] = "blocks"
    norm_name: ClassVar[str] = "norm"

    def __init__(
        self,
        img_size: Size,
        patch_size: int,
        stride: int | None,
        dim: int,
        num_classes: int | None,
        in_chans: int = 3,
        class_token: ClassToken = "first",
        pool: Pool | None = None,
        drop_rate: float = 0.0,
        pos_embed: bool = True,
        pos_embed_resize: Literal["middle_aware", "upstream"] = "middle_aware",
        pretrained_stride: int | None = None,
        dynamic_img_size: bool = False,
        grad_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, dim
        self.class_tokens, self.pool = ClassTokens(class_token), pool
        self.pos_embed_resize, self.pretrained_stride = pos_embed_resize, pretrained_stride
        self.dynamic_img_size, self.grad_checkpointing = dynamic_img_size, grad_checkpointing
        if pool is not None and self.class_tokens.count:
            raise SuiteError(
                expected="a class token or a pool over the patches",
                found=f"class_token {class_token} and pool {pool}",
                where="network.init_args",
                cure="set class_token: none, or leave pool out",
            )
        self.patch_embed = PatchEmbed(img_size, patch_size, stride or patch_size, in_chans, dim)
        for name in self.class_tokens.names:
            setattr(self, name, nn.Parameter(torch.zeros(1, 1, dim)))
        tokens = self.patch_embed.num_patches + self.class_tokens.count
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim)) if pos_embed else None
        self.pos_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    @property
    def img_size(self) -> tuple[int, int]:
        """Height and width in pixels the model was built for."""
        return self.patch_embed.img_size

    @property
    def depth(self) -> int:
        """Number of blocks, as `forward_intermediates` counts them."""
        return len(self._blocks)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Width and reduction of each block's map, for timm's `features_only`."""
        stage = {"num_chs": self.num_features, "reduction": self.patch_embed.stride}
        return [{**stage, "module": f"{self.blocks_name}.{i}"} for i in range(self.depth)]

    def forward(self, images: Tensor) -> Tensor:
        """Classifies images.

        Args:
            images: (B, in_chans, H, W), normalised.

        Returns:
            Logits (B, num_classes).
        """
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """Final normalised tokens (B, L, D), class tokens included."""
        stream = self._start(images)
        for index in range(self.depth):
            stream = self._step(index, stream)
        return self._finish(stream)

    def forward_head(self, tokens: Tensor, pre_logits: bool = False) -> Tensor:
        """Pools the tokens of `forward_features` and applies the head.

        Args:
            tokens: (B, L, D).
            pre_logits: Return the pooled features (B, D) instead of logits; with pool `all` they
                are all tokens.
        """
        patches, own = self.class_tokens.split(tokens)
        if own.shape[1]:
            features = own.mean(1)
        elif self.pool == "last":
            features = patches[:, -1]
        elif self.pool == "max":
            return patches.amax(1) if pre_logits else self.head(patches).amax(1)
        else:
            features = patches if self.pool == "all" else patches.mean(1)
        return features if pre_logits else self.head(features)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Any] | tuple[Tensor, list[Any]]:
        """Outputs of chosen blocks, for dense heads (the signature is timm's).

        Args:
            images: (B, in_chans, H, W).
            indices: Block numbers, negative from the end; an int n = the last n; `None` = all.
            return_prefix_tokens: Also return each block's class tokens (B, count, D).
            norm: Apply the final norm, else the block's own output.
            stop_early: Skip the blocks after the last wanted one.
            output_fmt: `NCHW` maps (B, D, rows, columns) or `NLC` patch tokens (B, M, D).
            intermediates_only: Return only the list.

        Returns:
            Final tokens of `forward_features` and the list, or the list alone.
        """
        wanted = chosen_indices(indices, self.depth)
        grid, stream, found = self.patch_embed.grid_of(images), self._start(images), []
        for index in range(max(wanted) + 1 if stop_early else self.depth):
            stream = self._step(index, stream)
            if index in wanted:
                tokens = self._finish(stream) if norm else self._output(stream)
                patches, own = self.class_tokens.split(tokens)
                if output_fmt == "NCHW":
                    patches = patches.mT.reshape(*patches.mT.shape[:2], *grid)
                found.append((patches, own) if return_prefix_tokens else patches)
        return found if intermediates_only else (self._finish(stream), found)

    def patch_tokens(self, tokens: Tensor) -> Tensor:
        """Patches (B, M, D) among the tokens of `forward_features`."""
        return self.class_tokens.split(tokens)[0]

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head by a freshly initialised one; 0 classes leave the features."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self._initialise_head()
        self.head.to(self.patch_embed.proj.weight.device)
        self.init_call["init_args"]["num_classes"] = num_classes

    def no_weight_decay(self) -> set[str]:
        """Embeddings; timm and our optimiser groups read it."""
        return {*self.class_tokens.names, *(["pos_embed"] if self.pos_embed is not None else [])}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Stem, blocks and final norm for layer-wise learning rates (timm's contract)."""
        return {
            "stem": r"^cls_token|^pos_embed|^patch_embed",
            "blocks": [
                (rf"^{self.blocks_name}\.(\d+)", None),
                (rf"^{self.norm_name}\.", (99999,)),
            ],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def set_input_size(self, img_size: Size) -> None:
        """Changes the image size for good, resizing the position table."""
        old_grid = self.patch_embed.grid
        self.patch_embed.set_size(img_size)
        if self.pos_embed is not None:
            table = self.pos_embed.detach()
            self.pos_embed = nn.Parameter(self._resize(table, old_grid, self.patch_embed.grid))
        self.init_call["init_args"]["img_size"] = list(self.img_size)

    def adapt_state_dict(
        self, state: dict[str, Tensor], grid: Grid | None = None
    ) -> dict[str, Tensor]:
        """Fits weights of another image size to this model.

        Args:
            state: Upstream or own entries; not changed.
            grid: Patch grid they were trained on; `None` = a square one, as in every release, or
                one of the model's proportions.

        Returns:
            The entries with `pos_embed` resized where its rows differ.

        Raises:
            SuiteError: No such grid, or one that speaks for another stride.
        """
        table = state.get("pos_embed")
        if self.pos_embed is None or table is None or table.shape[1] == self.pos_embed.shape[1]:
            return dict(state)
        grid = grid or likely_grid(self.patch_embed, table.shape[1] - self.class_tokens.count)
        if grid is None:
            raise SuiteError(
                expected="positions of a square grid of patches, or of the model's proportions "
                f"({' x '.join(map(str, self.patch_embed.grid))}), and of class tokens "
                f"({self.class_tokens.count})",
                found=f"{table.shape[1]} rows",
                where="pos_embed of the checkpoint",
                cure="build the class_token the weights were trained with, or in Python pass "
                "adapt_state_dict(state, grid=(rows, columns))",
            )
        if self.pretrained_stride is None:
            check_stride(self.patch_embed, grid)
        return {**state, "pos_embed": self._resize(table, grid, self.patch_embed.grid)}

    @property
    def _blocks(self) -> nn.ModuleList:
        blocks: nn.ModuleList = getattr(self, self.blocks_name)
        return blocks

    def _start(self, images: Tensor) -> Any:
        """What the first block gets; opaque to this class, as is what it makes of it."""
        return self._embed(images)

    def _step(self, index: int, stream: Any) -> Any:
        """Runs a block."""
        return self._recompute(self._blocks[index], stream)

    def _output(self, stream: Any) -> Tensor:
        """Tokens (B, L, D) that the last block run gave."""
        tokens: Tensor = stream
        return tokens

    def _finish(self, stream: Any) -> Tensor:
        """Final normalised tokens (B, L, D)."""
        tokens: Tensor = getattr(self, self.norm_name)(stream)
        return tokens

    def _embed(self, images: Tensor) -> Tensor:
        """Patches and class tokens with positions, (B, L, D)."""
        tokens = self._tokens(images)
        if self.pos_embed is not None:
            grid = self.patch_embed.grid_of(images)
            tokens = tokens + self._resize(self.pos_embed, self.patch_embed.grid, grid)
        embedded: Tensor = self.pos_drop(tokens)
        return embedded

    def _tokens(self, images: Tensor) -> Tensor:
        if self.patch_embed.grid_of(images) != self.patch_embed.grid and not self.dynamic_img_size:
            raise SuiteError(
                expected=f"images of {self.img_size} pixels",
                found=f"{tuple(images.shape[-2:])}",
                where=f"{type(self).__name__}.forward",
                cure="set img_size in data and network alike, or network dynamic_img_size: true",
            )
        patches = self.patch_embed(images)
        own = [
            getattr(self, name).expand(patches.shape[0], -1, -1) for name in self.class_tokens.names
        ]
        return self.class_tokens.insert(patches, torch.cat(own, dim=1)) if own else patches

    def _recompute(self, block: nn.Module, *given: Any) -> Any:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *given, use_reentrant=False)
        return block(*given)

    def _resize(self, table: Tensor, grid: Grid, new_grid: Grid) -> Tensor:
        return self.class_tokens.resize(table, grid, new_grid, self.pos_embed_resize == "upstream")

    def _initialise_embedding(self) -> None:
        """Starts class tokens, positions and head as DeiT and Vim do: N(0, 0.02), no bias."""
        for name in ("pos_embed", *self.class_tokens.names):
            if (parameter := getattr(self, name)) is not None:
                trunc_normal_(parameter, std=0.02)
        self._initialise_head()

    def _initialise_head(self) -> None:
        if isinstance(self.head, nn.Linear):
            trunc_normal_(self.head.weight, std=0.02)
            zeros_(self.head.bias)
