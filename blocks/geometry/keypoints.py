"""Joints of other detectors in the order of Human3.6M's 17.

Human3.6M's pelvis, spine, thorax, neck and head are inside the body, where detectors mark the skin;
they are made of midpoints, as Walter0807/MotionBERT does for Halpe and COCO:

    pelvis = (left hip + right hip) / 2          spine = (pelvis + thorax) / 2
    thorax = (left shoulder + right shoulder) / 2
    neck   = nose;  head = (left eye + right eye) / 2, or the detector's own

All functions take and return (..., joints, 2 or 3): x, y and perhaps a confidence. The confidence
of a midpoint is the lower of the two.
"""

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError

Array = npt.NDArray[np.floating]

# Place in the detector's order of the twelve joints that both know, in Human3.6M's order:
# right hip, knee, ankle; left hip, knee, ankle; left shoulder, elbow, wrist; right ones.
_LIMBS = (1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16)
_COCO = (12, 14, 16, 11, 13, 15, 5, 7, 9, 6, 8, 10)
_MEDIAPIPE = (24, 26, 28, 23, 25, 27, 11, 13, 15, 12, 14, 16)


def coco_to_h36m(joints: Array) -> Array:
    """COCO-17: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles; left first."""
    _expect(joints, 17, "COCO")
    nose, eyes = joints[..., 0, :], _midpoint(joints, 1, 2)
    return _assemble(joints, _COCO, neck=nose, head=eyes)


def halpe_to_h36m(joints: Array) -> Array:
    """Halpe-26 (AlphaPose): COCO-17, then head top 17, neck 18, pelvis 19 and six of the feet."""
    _expect(joints, 26, "Halpe")
    out = _assemble(joints, _COCO, neck=joints[..., 0, :], head=joints[..., 17, :])
    out[..., 0, :], out[..., 8, :] = joints[..., 19, :], joints[..., 18, :]
    out[..., 7, :] = _midpoint(out, 0, 8)
    return out


def mediapipe_to_h36m(joints: Array) -> Array:
    """MediaPipe's 33: nose 0, eyes 1-6, ears 7-8, mouth 9-10, shoulders 11-12, ... hips 23-24."""
    _expect(joints, 33, "MediaPipe")
    return _assemble(joints, _MEDIAPIPE, neck=joints[..., 0, :], head=_midpoint(joints, 2, 5))


def openpose_to_h36m(joints: Array) -> Array:
    """OpenPose BODY_25: nose, neck, right arm, left arm, mid hip 8, right leg, left leg, eyes."""
    _expect(joints, 25, "OpenPose BODY_25")
    places = (9, 10, 11, 12, 13, 14, 5, 6, 7, 2, 3, 4)
    out = _assemble(joints, places, neck=joints[..., 0, :], head=_midpoint(joints, 15, 16))
    out[..., 0, :], out[..., 8, :] = joints[..., 8, :], joints[..., 1, :]
    out[..., 7, :] = _midpoint(out, 0, 8)
    return out


def h36m_to_3dhp(joints: Array) -> Array:
    """Human3.6M's 17 in the order of MPI-INF-3DHP; its head is Human3.6M's nose."""
    _expect(joints, 17, "Human3.6M")
    order = [10, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6, 0, 7, 9]
    return joints[..., order, :]


CONVERTERS = {
    "coco": coco_to_h36m,
    "halpe": halpe_to_h36m,
    "mediapipe": mediapipe_to_h36m,
    "openpose": openpose_to_h36m,
}


def _assemble(joints: Array, places: tuple[int, ...], neck: Array, head: Array) -> Array:
    out = np.empty((*joints.shape[:-2], 17, joints.shape[-1]), joints.dtype)
    out[..., _LIMBS, :] = joints[..., places, :]
    out[..., 0, :] = _midpoint(out, 1, 4)
    out[..., 8, :] = _midpoint(out, 11, 14)
    out[..., 7, :] = _midpoint(out, 0, 8)
    out[..., 9, :], out[..., 10, :] = neck, head
    return out


def _midpoint(joints: Array, a: int, b: int) -> Array:
    first, second = joints[..., a, :], joints[..., b, :]
    middle = (first + second) / 2
    if joints.shape[-1] > 2:
        middle[..., 2] = np.minimum(first[..., 2], second[..., 2])
    return middle


def _expect(joints: Array, count: int, who: str) -> None:
    if joints.ndim < 2 or joints.shape[-2] != count or joints.shape[-1] not in (2, 3):
        raise SuiteError(
            expected=f"{who} joints of shape (..., {count}, 2 or 3)",
            found=str(joints.shape),
            where="keypoints",
            cure="name the detector that made them",
        )
