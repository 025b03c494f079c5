"""The first blocks of CLIP's ViT, as patch features of an image of any size.

Keys are those of open_clip's visual tower (mlfoundations/open_clip); the text tower, later blocks
and the projection are left aside. Positions are resized bicubically from the grid of the training.

Shapes: B images, h x w patches, D width.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blocks import Recorded
from blocks.errors import SuiteError


class CLIPTrunk(Recorded, nn.Module):
    """Images (B, 3, H, W) to patch features (B, h, w, D).

    The defaults are ViT-B/16. Frozen parameters get no gradient and keep no graph.

    Args:
        dim: Width D.
        depth: Blocks that are used, from the first.
        num_heads: Heads of the attention.
        patch_size: Side of a patch in pixels.
        grid: Patches along a side of the images that the positions were trained on.
        frozen_blocks: First blocks that keep their weights, with everything before them; 0 trains
            all.
        activation: `gelu` for weights of LAION and DataComp, `quick_gelu` for OpenAI's.
    """

    def __init__(
        self,
        dim: int = 768,
        depth: int = 4,
        num_heads: int = 12,
        patch_size: int = 16,
        grid: int = 14,
        frozen_blocks: int = 3,
        activation: Literal["gelu", "quick_gelu"] = "gelu",
    ) -> None:
        super().__init__()
        if not 0 <= frozen_blocks <= depth:
            raise SuiteError(
                expected=f"frozen_blocks in 0..{depth}",
                found=str(frozen_blocks),
                where="CLIPTrunk",
                cure="freeze at most the blocks there are, or raise depth",
            )
        self.dim, self.patch_size, self.grid = dim, patch_size, grid
        self.conv1 = nn.Conv2d(3, dim, patch_size, patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(grid**2 + 1, dim) * dim**-0.5)
        self.ln_pre = nn.LayerNorm(dim)
        self.transformer = nn.Module()
        self.transformer.resblocks = nn.ModuleList(
            CLIPBlock(dim, num_heads, activation) for _ in range(depth)
        )
        if frozen_blocks:
            self.requires_grad_(False)
            for block in self.blocks[frozen_blocks:]:
                block.requires_grad_(True)

    @property
    def blocks(self) -> nn.ModuleList:
        """The blocks in order."""
        found: nn.ModuleList = self.transformer.resblocks  # type: ignore[assignment]
        return found

    def no_weight_decay(self) -> set[str]:
        """Names of embeddings, which must keep their size."""
        return {"class_embedding", "positional_embedding"}

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, h, w, D) of normalised images (B, 3, H, W).

        Raises:
            SuiteError: The sides are no multiples of the patch.
        """
        if any(side % self.patch_size for side in image.shape[-2:]):
            raise SuiteError(
                expected=f"images with sides divisible by the patch, {self.patch_size}",
                found=f"{image.shape[-2]} x {image.shape[-1]}",
                where="CLIPTrunk",
                cure="set the datamodule's image size to multiples of it, such as 224 x 304",
            )
        patches = self.conv1(image)
        batch, _, height, width = patches.shape
        first = self.class_embedding.expand(batch, 1, -1)
        x = torch.cat((first, patches.flatten(2).transpose(1, 2)), 1)
        x = self.ln_pre(x + self._positions(height, width))
        for block in self.blocks:
            x = block(x)
        out: Tensor = x[:, 1:].reshape(batch, height, width, self.dim)
        return out

    def adapt_state_dict(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Picks the trunk's own entries from those of a whole CLIP or of its visual tower."""
        inside = {
            key.removeprefix("visual."): value
            for key, value in state.items()
            if key.startswith("visual.")
        }
        own = self.state_dict().keys()
        return {key: value for key, value in (inside or dict(state)).items() if key in own}

    def _positions(self, height: int, width: int) -> Tensor:
        if (height, width) == (self.grid, self.grid):
            return self.positional_embedding
        first, rest = self.positional_embedding[:1], self.positional_embedding[1:]
        square = rest.T.reshape(1, self.dim, self.grid, self.grid)
        resized = F.interpolate(square, (height, width), mode="bicubic", antialias=True)
        return torch.cat((first, resized[0].flatten(1).T))


class CLIPBlock(nn.Module):
    """Attention and MLP with norms before them, (B, N, D) to (B, N, D)."""

    def __init__(self, dim: int, num_heads: int, activation: str) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(dim)
        self.attn = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(dim, 4 * dim))
        self.mlp.add_module("gelu", QuickGELU() if activation == "quick_gelu" else nn.GELU())
        self.mlp.add_module("c_proj", nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Adds what attention and MLP say."""
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class QuickGELU(nn.Module):
    """x sigmoid(1.702 x), the activation OpenAI's weights were trained with."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


def sample_patches(patches: Tensor, uv: Tensor, size: Tensor, sample: Tensor) -> Tensor:
    """Bilinear patch features at pixels, borders repeated.

    Pixel centres have integer coordinates in an image of the size that `uv` refers to; patches are
    areas, so that no rounding of either grid moves a point.

    Args:
        patches: (B, h, w, C).
        uv: Pixels, (P, 2).
        size: Width and height of the images that `uv` refers to, (B, 2).
        sample: Image of each point, (P,).

    Returns:
        (P, C).
    """
    _, height, width, channels = patches.shape
    # In the type of uv: half precision does not tell neighbouring pixels apart.
    scale = uv.new_tensor((width, height)) / size.to(uv.dtype)
    limit = uv.new_tensor((width - 1, height - 1))
    place = ((uv + 0.5) * scale[sample] - 0.5).clamp(min=0)
    place = torch.minimum(place, limit)
    low = torch.minimum(place.floor(), (limit - 1).clamp(min=0))
    share = place - low
    x, y = low.long().unbind(1)
    right, down = (x + 1).clamp(max=width - 1), (y + 1).clamp(max=height - 1)
    rows = patches.reshape(-1, channels)
    out = patches.new_zeros(len(uv), channels)
    for column, across in ((x, 1 - share[:, 0]), (right, share[:, 0])):
        for row, along in ((y, 1 - share[:, 1]), (down, share[:, 1])):
            corner = rows[(sample * height + row) * width + column]
            out = out + corner * (across * along).unsqueeze(1).to(corner.dtype)
    return out
