"""What text-to-motion asks of a network; CMDM, MDM and AdaLNBiMamba offer it, and so may yours."""

from typing import Literal, Protocol

from torch import Tensor, nn

from blocks.errors import SuiteError


class Denoiser(Protocol):
    """From noisy motion to clean motion (or noise, or velocity, as the diffusion asks for).

    Attributes:
        in_features: Features D of a frame.
        text_dim: Width of the text embedding.
        contact: `points` if it sees a scene: it then takes `points` and `contact`, or `scene` from
            its method `encode_scene(points, contact)`, and `erase_contact`.
        sees_padding: Whether what it says of a motion depends on the padding behind it.
    """

    in_features: int
    text_dim: int
    contact: Literal["none", "points"]
    sees_padding: bool

    def __call__(
        self,
        x: Tensor,
        time: Tensor,
        text: Tensor,
        padding_mask: Tensor | None = None,
        text_mask: Tensor | None = None,
        erase_text: Tensor | None = None,
        *,
        points: Tensor | None = None,
        contact: Tensor | None = None,
        scene: list[Tensor] | None = None,
        erase_contact: Tensor | None = None,
    ) -> Tensor:
        """Shapes as in `CMDM.forward`."""
        ...

    def encode_scene(self, points: Tensor, contact: Tensor) -> list[Tensor]:
        """Tokens of a scene, once for all steps of sampling."""
        ...


def check_denoiser(network: nn.Module) -> None:
    """Names what a network lacks.

    Raises:
        SuiteError: It is no denoiser.
    """
    needed = ("in_features", "text_dim", "contact", "sees_padding")
    if lacking := [name for name in needed if not hasattr(network, name)]:
        raise SuiteError(
            expected="a denoiser: CMDM, MDM, AdaLNBiMamba, or a network with their attributes",
            found=f"{type(network).__name__} without {', '.join(lacking)}",
            where="model.init_args.network",
            cure="choose one of them, or see lightning_modules/motion/networks/denoiser.py",
        )
