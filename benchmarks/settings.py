"""What a benchmark is told, and whether it makes sense here."""

import difflib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from blocks.errors import SuiteError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Says on the terminal what is being measured; library code does not print.
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How to measure.

    Args:
        device: Device of torch: `cpu`, `cuda`, `cuda:1`.
        dtype: Type of the scan's streams; for mixers and models that of an autocast region.
        threads: CPU threads of everybody; `None` leaves torch's own choice.
        rounds: Rounds of a comparison; `None` is 7, or 2 with `quick`.
        quick: Small shapes, few rounds: tries the machinery, measures nothing.
        peers: Names to measure beside ours; `None` is all.
    """

    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    rounds: int | None = None
    quick: bool = False
    peers: tuple[str, ...] | None = None

    @property
    def turns(self) -> int:
        """Rounds of a comparison."""
        return self.rounds or (2 if self.quick else 7)

    @property
    def suffix(self) -> str:
        """End of the files' names, so that no lesser run replaces the figures of record."""
        kind = torch.device(self.device).type
        parts = [kind, *([self.dtype] if self.dtype != "float32" else [])]
        parts += [word for word in ("quick",) if self.quick]
        parts += ["partial"] if self.peers is not None else []
        return "_".join(parts)


def check_settings(settings: Settings) -> None:
    """Refuses what cannot be measured here.

    Raises:
        SuiteError: No such device, type, or a count below 1.
    """
    _check_device(settings.device)
    if settings.dtype not in DTYPES:
        raise SuiteError(
            expected=f"one of {', '.join(DTYPES)}",
            found=settings.dtype,
            where="--dtype",
            cure=_nearest(settings.dtype, DTYPES) or "leave it out for float32",
        )
    for name, count in (("threads", settings.threads), ("rounds", settings.rounds)):
        if count is not None and count < 1:
            raise SuiteError(
                expected="a whole number from 1",
                found=str(count),
                where=f"--{name}",
                cure="leave it out to get the default",
            )


def chosen(settings: Settings, known: Collection[str]) -> list[str]:
    """The peers to measure, in the order of `known`.

    Raises:
        SuiteError: A name that is not known; the message has the nearest.
    """
    for name in settings.peers or ():
        if name not in known:
            raise SuiteError(
                expected=f"peers among {', '.join(known)}",
                found=name,
                where="--peers",
                cure=_nearest(name, known) or "leave --peers out to measure all",
            )
    return [name for name in known if settings.peers is None or name in settings.peers]


@contextmanager
def equal_threads(threads: int | None) -> Iterator[None]:
    """Gives everybody in the block the same CPU threads, and the process its own ones back."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def default_output() -> Path:
    """`benchmarks/results` of a checkout; `bench` here when the package was installed."""
    package = Path(__file__).parent
    return package / "results" if (package.parent / "pyproject.toml").is_file() else Path("bench")


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SuiteError(
            expected="a device: cpu, cuda or cuda:INDEX",
            found=name,
            where="--device",
            cure=_nearest(name, ("cpu", "cuda")) or "leave it out for cpu",
        ) from error
    present = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type != "cpu" and (device.type != "cuda" or (device.index or 0) >= present):
        raise SuiteError(
            expected=f"cpu{' or ' if present else ''}"
            + ", ".join(f"cuda:{index}" for index in range(present)),
            found=f"{name}, which torch {torch.__version__} does not see here",
            where="--device",
            cure="use --device cpu, or look for the reason with bimamba doctor",
        )


def _nearest(word: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(word, known, 1)
    return f"did you mean {near[0]}?" if near else ""
