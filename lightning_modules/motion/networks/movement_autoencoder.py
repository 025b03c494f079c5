"""Movement snippets of four frames and back; the first stage of upstream's evaluator.

Keys and shapes are those of EricGuo5513/text-to-motion (`Decomp_SP001_SM001_H512`).

Axes: B windows, L frames, M = L / 4 snippets, D features.
"""

from torch import Tensor, nn

from blocks import Recorded
from lightning_modules.motion.networks.motion_evaluator import CONTACTS, MovementEncoder


class MovementAutoencoder(Recorded, nn.Module):
    """Encodes motion without its contacts and gives all features back.

    Args:
        in_features: Features D of a frame, foot contacts included.
        dim: Width of a snippet.
        drop_contacts: Whether the encoder leaves out the last 4 features.
    """

    def __init__(self, in_features: int = 263, dim: int = 512, drop_contacts: bool = True) -> None:
        super().__init__()
        self.in_features = in_features
        self.features = in_features - CONTACTS * drop_contacts
        self.movement_enc = MovementEncoder(self.features, dim)
        self.movement_dec = MovementDecoder(dim, in_features)

    def forward(self, motion: Tensor) -> tuple[Tensor, Tensor]:
        """Encodes and decodes.

        Args:
            motion: (B, L, D), L a multiple of 4.

        Returns:
            Snippets (B, M, dim) and motion (B, L, D).
        """
        snippets = self.movement_enc(motion[..., : self.features])
        return snippets, self.movement_dec(snippets)


class MovementDecoder(nn.Module):
    """Snippets (B, M, dim) to frames (B, 4 M, features).

    Args:
        dim: Width of a snippet, and in between.
        features: Features of a frame.
    """

    def __init__(self, dim: int, features: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose1d(dim, dim, 4, 2, 1), nn.LeakyReLU(0.2),
            nn.ConvTranspose1d(dim, features, 4, 2, 1), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.out_net = nn.Linear(features, features)

    def forward(self, snippets: Tensor) -> Tensor:
        """Decodes (B, M, dim)."""
        out: Tensor = self.out_net(self.main(snippets.mT).mT)
        return out
