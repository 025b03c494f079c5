"""Poses while the camera runs: one frame in, one pose out, with constant memory.

For a causal `HybridLifter`, whose poses depend on no later frame; what comes out is what the whole
clip at once would give.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.cameras import normalise
from blocks.geometry.skeleton import H36M
from lightning_modules.pose.flipping import flipped
from lightning_modules.pose.networks.hybrid import HybridLifter, LifterState

_JOINTS = len(H36M.names)


class StreamingLifter:
    """Lifts the 2-D joints of one person frame by frame.

        from lightning_modules.pose import PoseLifting, StreamingLifter

        module = PoseLifting.load_from_checkpoint("runs/pose/first/checkpoints/last.ckpt")
        lifter = StreamingLifter(module.network, size=(1920, 1080))
        for joints in detector:     # (17, 3): x, y in pixels and confidence; NaN if not found
            pose = lifter(joints)   # (17, 3): x right, y down, z away, root at 0
        lifter.reset()              # Before the next person or video.

    A joint that was not found (NaN, or confidence 0) stays where it was last seen, with confidence
    0; before that it is in the middle of the image. Joints are those of Human3.6M:
    `blocks.geometry.keypoints` converts from other detectors'. Lifters of several people share one
    network.

    Args:
        network: Causal, of x, y and, as a rule, confidence. It is put into evaluation mode.
        size: Width and height of the image, pixels.
        root_relative: Puts the root at the origin, as `PoseLifting` does.
        flip_test: Averages with the mirrored person, as `PoseLifting` does; twice the work.

    Raises:
        SuiteError: The network is not causal, or wants features of a later frame.
    """

    def __init__(
        self,
        network: HybridLifter,
        size: tuple[int, int],
        root_relative: bool = True,
        flip_test: bool = False,
    ) -> None:
        if not isinstance(network, HybridLifter) or network.in_features not in (2, 3):
            raise SuiteError(
                expected="a HybridLifter of x, y and confidence",
                found=type(network).__name__
                + (f" of {network.in_features} features" * isinstance(network, HybridLifter)),
                where="StreamingLifter, network",
                cure="train configs/pose/hybrid_causal_xs.yaml; velocities would need the next "
                "frame",
            )
        self.network = network.eval()
        self.root_relative, self.flip_test = root_relative, flip_test
        weight = network.pos_embed
        self.size = torch.tensor(size, dtype=weight.dtype, device=weight.device)
        self.reset()

    def reset(self) -> None:
        """Begins a new stream."""
        self.state: LifterState = self.network.allocate_state(1 + self.flip_test)
        self._last = self.size.expand(_JOINTS, 2) / 2

    @property
    def nbytes(self) -> int:
        """Memory of the stream in bytes, the same after any number of frames."""
        return self.state.nbytes + self._last.nbytes

    def __call__(self, joints: Tensor) -> Tensor:
        """Lifts the next frame.

        Args:
            joints: x, y in pixels and, if there is one, confidence, (17, 2) or (17, 3).

        Returns:
            Pose in halves of the image's width, (17, 3).

        Raises:
            SuiteError: Joints of another shape.
        """
        if joints.shape not in ((_JOINTS, 2), (_JOINTS, 3)):
            raise SuiteError(
                expected="joints of one person, (17, 2) or (17, 3)",
                found=str(tuple(joints.shape)),
                where="StreamingLifter",
                cure="convert with blocks.geometry.keypoints, one person at a time",
            )
        # Hundreds of small operations: without autograd's book-keeping they take a sixth less time,
        # and waking a second thread for each of them costs up to five times what it saves.
        with torch.inference_mode(), _one_thread():
            pose = self._lifted(joints.to(self.size))
        return pose.clone()  # Outside, so that the caller gets an ordinary tensor.

    def _lifted(self, joints: Tensor) -> Tensor:
        x = self._features(joints).unsqueeze(0)
        if self.flip_test:
            x = torch.cat((x, flipped(x, H36M)))
        pose = self.network.step(x, self.state)
        if self.flip_test:
            pose = (pose[:1] + flipped(pose[1:], H36M)) / 2
        if self.root_relative:
            pose[:, H36M.root] = 0
        return pose[0]

    def _features(self, joints: Tensor) -> Tensor:
        """What the network reads, (17, in_features)."""
        xy = joints[:, :2]
        confidence = joints[:, 2] if joints.shape[1] == 3 else torch.ones_like(xy[:, 0])
        seen = joints.isfinite().all(1) & (confidence > 0)
        self._last = torch.where(seen.unsqueeze(1), xy, self._last)
        confidence = torch.where(seen, confidence, 0)
        features = torch.cat((normalise(self._last, self.size), confidence.unsqueeze(1)), 1)
        return features[:, : self.network.in_features]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
