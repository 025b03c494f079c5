"""ScanNet's `.sens` recordings: frames of a colour and a depth camera in one file.

Little endian, version 4; layout from ScanNet/ScanNet, SensReader/python/SensorData.py.
"""

import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from blocks.errors import SuiteError
from blocks.files import atomic_path

Array = npt.NDArray[Any]

_VERSION = 4
_COLOR = {0: "raw", 1: "png", 2: "jpg"}
_DEPTH = {0: "raw", 1: "zlib"}
# Pose, two times, and the lengths of both images.
_FRAME = struct.Struct("<16f4Q")


@dataclass(frozen=True)
class SensHeader:
    """What stands before the frames.

    Args:
        sensor: Its name.
        intrinsic_color: (4, 4).
        extrinsic_color: (4, 4).
        intrinsic_depth: (4, 4).
        extrinsic_depth: (4, 4).
        color_format: jpg, png or raw bytes.
        depth_format: zlib or raw: uint16 either way.
        color_size: Width and height.
        depth_size: Width and height.
        depth_shift: Units of depth in a metre.
        num_frames: Frames that follow.
    """

    sensor: str
    intrinsic_color: Array
    extrinsic_color: Array
    intrinsic_depth: Array
    extrinsic_depth: Array
    color_format: str
    depth_format: str
    color_size: tuple[int, int]
    depth_size: tuple[int, int]
    depth_shift: float
    num_frames: int


class SensFrame(NamedTuple):
    """One frame, still encoded.

    Args:
        number: From 0.
        pose: (4, 4) float32, camera to world; not finite where tracking was lost.
        color: Encoded image.
        depth: Encoded depth.
    """

    number: int
    pose: Array
    color: bytes
    depth: bytes


class SensFile:
    """A recording on disk; iterating gives its frames without keeping them.

    Args:
        path: The file.

    Raises:
        SuiteError: No such file, or not a recording of version 4.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise self._broken("no such file")
        with self.path.open("rb") as file:
            self.header = self._header(file)
            self._start = file.tell()

    def frames(self, every: int = 1) -> Iterator[SensFrame]:
        """Frames 0, every, 2 * every, ...

        Args:
            every: Step.

        Raises:
            SuiteError: The file ends before its last frame.
        """
        with self.path.open("rb") as file:
            file.seek(self._start)
            for number in range(self.header.num_frames):
                head = self._read(file, _FRAME.size, f"frame {number}")
                *pose, _, _, color, depth = _FRAME.unpack(head)
                if number % every:
                    file.seek(color + depth, io.SEEK_CUR)
                    continue
                images = [self._read(file, size, f"frame {number}") for size in (color, depth)]
                matrix = np.array(pose, np.float32).reshape(4, 4)
                yield SensFrame(number, matrix, images[0], images[1])

    def depth(self, frame: SensFrame) -> Array:
        """Depth (H, W) uint16 of a frame, in units of 1 / depth_shift metres."""
        width, height = self.header.depth_size
        try:
            data = (
                zlib.decompress(frame.depth) if self.header.depth_format == "zlib" else frame.depth
            )
            return np.frombuffer(data, "<u2").reshape(height, width).astype(np.uint16)
        except (zlib.error, ValueError) as error:
            raise self._broken(f"damaged depth in frame {frame.number} ({error})") from error

    def color(self, frame: SensFrame) -> Image.Image:
        """Colour image of a frame."""
        if self.header.color_format == "raw":
            return Image.frombytes("RGB", self.header.color_size, frame.color)
        try:
            with Image.open(io.BytesIO(frame.color)) as image:
                return image.convert("RGB")
        except (OSError, SyntaxError) as error:
            raise self._broken(f"damaged colours in frame {frame.number} ({error})") from error

    def extract(self, to: Path, every: int = 1) -> Iterator[Path]:
        """Writes color/N.jpg, depth/N.png, pose/N.txt and intrinsic/*.txt.

        Args:
            to: Folder of the scan.
            every: Step from one exported frame to the next.

        Yields:
            Every finished file.
        """
        for name in ("intrinsic_color", "intrinsic_depth", "extrinsic_color", "extrinsic_depth"):
            yield _write_matrix(to / "intrinsic" / f"{name}.txt", getattr(self.header, name))
        scale = 1000 / self.header.depth_shift
        for frame in self.frames(every):
            with atomic_path(to / "color" / f"{frame.number}.jpg") as path:
                if self.header.color_format == "jpg":
                    path.write_bytes(frame.color)
                else:
                    self.color(frame).save(path, "JPEG", quality=95)
            yield to / "color" / f"{frame.number}.jpg"
            depth = self.depth(frame)
            if scale != 1:
                depth = (depth * scale).round().astype(np.uint16)
            with atomic_path(to / "depth" / f"{frame.number}.png") as path:
                Image.fromarray(depth).save(path)
            yield to / "depth" / f"{frame.number}.png"
            yield _write_matrix(to / "pose" / f"{frame.number}.txt", frame.pose)

    def _header(self, file: IO[bytes]) -> SensHeader:
        version, length = struct.unpack("<IQ", self._read(file, 12, "header"))
        if version != _VERSION or length > 4096:
            raise self._broken(f"version {version}")
        sensor = self._read(file, length, "header").decode("latin1")
        matrices = np.frombuffer(self._read(file, 4 * 64, "header"), "<f4").reshape(4, 4, 4)
        fields = struct.unpack("<2i4IfQ", self._read(file, 36, "header"))
        color, depth, color_w, color_h, depth_w, depth_h, shift, count = fields
        if color not in _COLOR or depth not in _DEPTH:
            raise self._broken(f"compressions {color} (colour) and {depth} (depth)")
        color_k, color_pose, depth_k, depth_pose = matrices.copy()
        return SensHeader(
            sensor, color_k, color_pose, depth_k, depth_pose, _COLOR[color], _DEPTH[depth],
            (color_w, color_h), (depth_w, depth_h), shift, count,
        )  # fmt: skip

    def _read(self, file: IO[bytes], size: int, where: str) -> bytes:
        data = file.read(size)
        if len(data) != size:
            raise self._broken(f"the file ends in the {where}")
        return data

    def _broken(self, found: str) -> SuiteError:
        return SuiteError(
            expected="a .sens recording of version 4 with JPEG colours and zlib depth",
            found=found,
            where=str(self.path),
            cure="download the recording again and compare its size with the source",
        )


def write_sens(path: Path, header: SensHeader, frames: Sequence[SensFrame]) -> None:
    """Writes a recording; for tests and small own sets.

    Args:
        path: File to write.
        header: Its `num_frames` is replaced by the number of frames.
        frames: Encoded as the header says.
    """
    sensor = header.sensor.encode("latin1")
    color, depth = (
        next(code for code, name in names.items() if name == wanted)
        for names, wanted in ((_COLOR, header.color_format), (_DEPTH, header.depth_format))
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<IQ", _VERSION, len(sensor)) + sensor)
        for name in ("intrinsic_color", "extrinsic_color", "intrinsic_depth", "extrinsic_depth"):
            file.write(getattr(header, name).astype("<f4").tobytes())
        sizes = (*header.color_size, *header.depth_size)
        file.write(struct.pack("<2i4IfQ", color, depth, *sizes, header.depth_shift, len(frames)))
        for frame in frames:
            pose = frame.pose.astype(np.float32).ravel().tolist()
            file.write(_FRAME.pack(*pose, 0, 0, len(frame.color), len(frame.depth)))
            file.write(frame.color + frame.depth)


def _write_matrix(path: Path, matrix: Array) -> Path:
    with atomic_path(path) as temporary:
        np.savetxt(temporary, matrix, fmt="%.8f")
    return path
