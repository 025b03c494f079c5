"""Mirror images of keypoints and poses: the other side's joints, x turned round."""

from torch import Tensor

from blocks.geometry.skeleton import Skeleton


def flipped(x: Tensor, skeleton: Skeleton) -> Tensor:
    """The mirror image of (..., J, features).

    The first feature is x about the middle of the image. A velocity along x, the fourth of five
    features, changes its sign too.

    Args:
        x: Keypoints or poses.
        skeleton: Says which joints change places.
    """
    signs = x.new_ones(x.shape[-1])
    signs[0] = -1
    if x.shape[-1] == 5:
        signs[3] = -1
    return x[..., list(skeleton.mirrored), :] * signs
