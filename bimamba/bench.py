"""`bimamba bench SUBJECT`: measures speed and memory beside peers, in the same run."""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bimamba.folders import why_not_writable
from blocks.errors import SuiteError

SUBJECTS = {
    "scan": "the selective scan: a PyTorch loop, associative_scan, mamba-ssm's formula, mambapy",
    "mixer": "the bidirectional mixer: two scans with flips, mambapy, attention; over lengths too",
    "model": "Vim-Tiny beside DeiT-Tiny, training and inference; the demo network",
    "loading": "reading, decoding and augmenting photos beside timm's loader, by one worker",
    "vision": "Vim, DeiT with naive and fused attention, VMamba: time and memory over image sizes",
    "retrieval": "ranking 20,000 queries in 200,000 images: time and memory under both protocols",
    "scannet": "Res16UNet34C beside the serialized Mamba U-Net; layers, spconv; average precision",
    "motion": "a training step and a sampled clip of CMDM beside its Transformer form",
    "pose": "poses of a stream, frame by frame; a training step of MotionAGFormer-B",
}
_DESCRIPTION = """\
Times the suite beside its peers: interleaved rounds, equal threads, median of ratios. Prints
tables, writes SUBJECT_DEVICE.json and .png.
"""
# Mean number of waiting processes in the minute before.
_BUSY = 0.7


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba bench`.

    Returns:
        Exit status. A missed target is a figure, not a failure.
    """
    given = _parser().parse_args(words)
    if given.subject not in SUBJECTS:
        near = difflib.get_close_matches(given.subject, SUBJECTS, 1)
        raise SuiteError(
            expected=f"one of {', '.join(SUBJECTS)}",
            found=given.subject,
            where="bimamba bench SUBJECT",
            cure=f"did you mean {near[0]}?" if near else "see bimamba bench --help",
        )
    # Else torch's profiler, which counts memory, reports on its own starts and stops.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    # Nor may processes that the compiler keeps ready take time from whoever is being measured.
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")
    from benchmarks.document import measure, write
    from benchmarks.settings import Settings, check_settings, default_output
    from benchmarks.tables import tables, targets_table

    settings = Settings(
        device=given.device,
        dtype=given.dtype,
        threads=_whole_number("threads", given.threads),
        rounds=_whole_number("rounds", given.rounds),
        quick=given.quick,
        peers=None if given.peers is None else tuple(given.peers.split(",")),
    )
    check_settings(settings)
    folder = default_output() if given.output is None else Path(given.output)
    if why := why_not_writable(folder):
        raise SuiteError(
            expected="a folder to write results to",
            found=why,
            where=f"--output {folder}",
            cure="choose another folder with --output",
        )
    console = Console(highlight=False)
    with console.status("") as status:
        # A full run takes minutes: a log should tell where it is, too.
        tell = status.update if console.is_terminal else _log
        document, promised = measure(given.subject, settings, tell)
    for table in tables(given.subject, document["results"]):
        console.print(table)
    if promised:
        console.print(targets_table(promised))
    if (document["machine"]["load_before"] or 0) > _BUSY:
        console.print("others kept this machine busy when measuring began: figures are noisy")
    for path in write(given.subject, settings, document, folder):
        console.print(f"written: {path}", soft_wrap=True)
    return 0


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bimamba bench",
        description=_DESCRIPTION,
        epilog="subjects:\n" + "\n".join(f"  {name:<7}{text}" for name, text in SUBJECTS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subject", metavar="SUBJECT", help=" | ".join(SUBJECTS))
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:INDEX (default: cpu)")
    parser.add_argument("--dtype", default="float32", help="float32 or bfloat16")
    parser.add_argument("--threads", metavar="N", help="CPU threads of everybody (torch's choice)")
    parser.add_argument("--rounds", metavar="N", help="rounds of each comparison (7; quick 2)")
    parser.add_argument("--peers", metavar="A,B", help="measure only these peers beside ours")
    parser.add_argument(
        "--output", metavar="DIR", help="folder of the results (benchmarks/results, else bench)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny shapes: tries the machinery, measures nothing"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _whole_number(name: str, text: str | None) -> int | None:
    """None or a number; its range is checked with the other settings."""
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise SuiteError(
            expected="a whole number from 1",
            found=text,
            where=f"--{name}",
            cure="leave it out to get the default",
        ) from error
