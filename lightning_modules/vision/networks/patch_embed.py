"""Patches of images as tokens: one convolution, overlapping or not."""

from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.positions import Grid

Size = int | tuple[int, int]


class PatchEmbed(nn.Module):
    """Images (B, C, H, W) to patch tokens (B, rows * columns, D), row-major.

    Args:
        img_size: Height and width in pixels; one number for a square.
        patch_size: Side of a patch in pixels.
        stride: Step between patches in pixels, less than `patch_size` for overlapping ones.
        in_chans: Channels C.
        dim: Width D.
    """

    def __init__(
        self, img_size: Size, patch_size: int, stride: int, in_chans: int, dim: int
    ) -> None:
        super().__init__()
        self.patch_size, self.stride = patch_size, stride
        self.set_size(img_size)
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=stride)

    def set_size(self, img_size: Size) -> None:
        """Sets the image size in pixels and with it the grid.

        Raises:
            SuiteError: Smaller than a patch.
        """
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        if min(height, width) < self.patch_size:
            raise SuiteError(
                expected=f"images of at least one patch, {self.patch_size} pixels",
                found=f"{height} x {width}",
                where="img_size",
                cure="enlarge img_size or choose a smaller patch_size",
            )
        self.img_size = (height, width)
        self.grid = self._grid(height, width)
        self.num_patches = self.grid[0] * self.grid[1]

    def grid_of(self, images: Tensor) -> Grid:
        """Rows and columns of patches in images (B, C, H, W)."""
        return self._grid(images.shape[-2], images.shape[-1])

    def forward(self, images: Tensor) -> Tensor:
        """Embeds the patches."""
        maps: Tensor = self.proj(images)
        return maps.flatten(2).mT

    def _grid(self, height: int, width: int) -> Grid:
        rows, columns = ((size - self.patch_size) // self.stride + 1 for size in (height, width))
        return rows, columns
