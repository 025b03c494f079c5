"""`bimamba submit CONFIG`: a SLURM job that goes on by itself when it is requeued.

The script is plain sbatch and is kept: what ran can be read, changed and submitted again. A run
gets a name, `--resume auto`, and SLURM's notice before the time is up: Lightning then writes a
checkpoint and requeues the job, which finds that checkpoint in its run directory.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bimamba.experiment_file import load_plain
from blocks.errors import SuiteError
from blocks.files import write_text

_DESCRIPTION = """\
Writes a SLURM job for a configuration of `fit`, a sweep or an ablation, and submits it where there
is an sbatch. What follows -- goes to the command as it is.

A configuration runs as one job over all nodes and devices, in one named run directory; requeued, it
goes on from its last checkpoint. A sweep or an ablation runs as an array of jobs that share the
work: each is the same command, and takes the next trial or run that nobody is working on.
"""
_EXAMPLES = """\
examples:
  bimamba submit configs/vision/vim_small.yaml --nodes 2 --devices 4 --time 24:00:00
  bimamba submit configs/pose/hybrid_b.yaml --devices 4 -- --data.init_args.root DIR
  bimamba submit configs/sweep/pose_rate.yaml --jobs 4 --devices 1 --partition gpu
  bimamba submit FILE.yaml --dry-run
"""
_NOTICE = 120  # seconds between SLURM's signal and the end


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba submit`.

    Returns:
        Exit status.

    Raises:
        SuiteError: No such file, or sbatch refuses the job.
    """
    words, more = _split(words)
    given = _parser().parse_args(words)
    verb = _verb(given.config)
    several = verb in ("sweep", "ablate")
    if several and (given.nodes > 1 or len(given.config) > 1):
        raise SuiteError(
            expected=f"one file for bimamba {verb}, whose runs take one node each",
            found=f"{len(given.config)} files, --nodes {given.nodes}",
            where="bimamba submit",
            cure="use --jobs N for several at once",
        )
    if given.jobs > 1 and not several:
        raise SuiteError(
            expected="--jobs for a sweep or an ablation",
            found=f"a configuration of fit and --jobs {given.jobs}",
            where="bimamba submit",
            cure="use --nodes and --devices for a larger run",
        )
    experiment = given.experiment or Path(given.config[0]).stem
    name = given.run_name or time.strftime("%Y%m%d-%H%M%S")
    folder = given.output / experiment / "jobs"
    text = script(given, verb, experiment, name, more)
    if given.dry_run:
        print(text, end="")
        return 0
    path = folder / f"{name}.sh"
    write_text(path, text)
    print(path)
    if shutil.which("sbatch") is None:
        print(f"there is no sbatch on this machine; on the cluster: sbatch {path}")
        return 0
    found = subprocess.run(["sbatch", str(path)], capture_output=True, text=True, check=False)
    if found.returncode:
        raise SuiteError(
            expected="a job that sbatch takes",
            found=found.stderr.strip() or f"exit status {found.returncode}",
            where=str(path),
            cure="mend the options or the script, then sbatch it again",
        )
    print(found.stdout.strip())
    return 0


def script(
    given: argparse.Namespace, verb: str, experiment: str, name: str, more: Sequence[str]
) -> str:
    """The text of the job.

    Args:
        given: Options of the command.
        verb: `fit`, `sweep` or `ablate`.
        experiment: Name of the experiment.
        name: Of the run, and of the job's files.
        more: Words for the command.
    """
    tasks = given.devices if verb == "fit" else 1
    gpus = [] if given.accelerator == "cpu" else [f"--gpus-per-node={given.devices}"]
    options = [
        f"--job-name={experiment}",
        f"--nodes={given.nodes}",
        f"--ntasks-per-node={tasks}",
        *gpus,
        f"--cpus-per-task={given.cpus}",
        f"--time={given.time}",
        "--requeue",
        "--open-mode=append",
        f"--output={given.output / experiment / 'jobs' / name}-%j.txt",
    ]
    if given.jobs > 1:
        options.append(f"--array=1-{given.jobs}")
    for option in ("partition", "account", "qos"):
        if getattr(given, option):
            options.append(f"--{option}={getattr(given, option)}")
    if verb == "fit":
        # Every task must hear it, hence no B: in front.
        options.append(f"--signal=SIGUSR1@{_NOTICE}")
    options += given.sbatch or []
    lines = ["#!/bin/bash", f"# Written by bimamba submit; again: sbatch {name}.sh"]
    lines += [f"#SBATCH {option}" for option in options]
    lines += ["set -euo pipefail", f"cd {shlex.quote(str(Path.cwd()))}", *(given.before or [])]
    return "\n".join(
        [*lines, f"srun {shlex.join(command(given, verb, experiment, name, more))}", ""]
    )


def command(
    given: argparse.Namespace, verb: str, experiment: str, name: str, more: Sequence[str]
) -> list[str]:
    """The words that each task runs.

    Args:
        given: Options of the command.
        verb: `fit`, `sweep` or `ablate`.
        experiment: Name of the experiment.
        name: Of the run.
        more: Further words.
    """
    words = [sys.executable, "-m", "bimamba", verb]
    if verb != "fit":
        return [*words, *given.config, "--output", str(given.output), *more]
    words += [word for file in given.config for word in ("--config", str(file))]
    devices = given.nodes * given.devices
    words += [f"--trainer.accelerator={given.accelerator}", f"--trainer.devices={given.devices}"]
    words += [f"--trainer.num_nodes={given.nodes}"]
    if devices > 1:
        words += ["--trainer.strategy=ddp", "--trainer.use_distributed_sampler=false"]
    words += ["--output", str(given.output), "--experiment", experiment, "--run_name", name]
    return [*words, "--resume", "auto", *more]


def _verb(files: Sequence[str]) -> str:
    """What the first file is for, by its keys."""
    content = load_plain(Path(files[0]))
    return "sweep" if "space" in content else "ablate" if "variants" in content else "fit"


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    words = list(words)
    if "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bimamba submit",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("config", nargs="+", metavar="FILE.yaml", help="configurations of fit, or one sweep")
    add("--nodes", type=_positive, default=1, metavar="N")
    add("--devices", type=_positive, default=1, metavar="N", help="per node")
    add("--accelerator", default="gpu", choices=("gpu", "cpu"))
    add("--jobs", type=_positive, default=1, metavar="N", help="at once, for a sweep or ablation")
    add("--cpus", type=_positive, default=8, metavar="N", help="cores per task; default 8")
    add("--time", default="24:00:00", help="of one piece; requeued, a run goes on")
    add("--partition")
    add("--account")
    add("--qos")
    add("--sbatch", action="append", metavar="OPTION", help="as in --sbatch=--mem=64G; repeatable")
    add(
        "--before",
        action="append",
        metavar="LINE",
        help="of the script before the command: 'module load cuda', 'source .venv/bin/activate'",
    )
    add("--experiment", metavar="NAME", help="default: the file's name")
    add("--run_name", metavar="NAME", help="default: the time")
    add("--output", type=Path, default=Path("runs"), metavar="DIR")
    add("--dry-run", action="store_true", help="print the script; write and submit nothing")
    add("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("expected a number of 1 or more")
    return value
