"""The door: answers --help at once, hands verbs to their file, turns errors into advice.

Nothing heavy is imported before a verb is known, so `bimamba --help` needs no torch.
"""

import difflib
import errno
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from blocks.errors import SuiteError

LIGHTNING_VERBS = {
    "fit": "train a network",
    "validate": "evaluate a checkpoint on the validation data",
    "test": "evaluate a checkpoint on the test data and write predictions.csv",
    "predict": "write predictions.csv for data without labels",
}
# Each lives in `bimamba/<verb>.py`, whose `main(words)` returns the exit status.
FURTHER_VERBS = {
    "ablate": "train variants x sizes x seeds from one file, with one table of them",
    "bench": "measure speed and memory of scan, mixer, model or vision beside peers",
    "check": "try a configuration: data, model, files, one batch; leaves nothing behind",
    "compare": "put finished runs side by side: tables, intervals over seeds, curves",
    "convert": "read released weights safely and write them as safetensors",
    "data": "describe, validate, generate, convert or repair the data of a configuration",
    "doctor": "look at the installation: versions, devices, scan backends, and cures",
    "export": "write the network of a run: safetensors, or .pth for upstream's programs",
    "report": "one page of runs, an ablation or a sweep: set-up, results, curves, pictures, cost",
    "runs": "list, show, resume, export, import runs, or free the disk of their checkpoints",
    "submit": "write a SLURM job of a run, a sweep or an ablation, and hand it to sbatch",
    "sweep": "search any keys of a configuration: TPE, random or grid, given up early, resumable",
}
VERBS = {**LIGHTNING_VERBS, **FURTHER_VERBS}

HELP = f"""\
usage: bimamba VERB --config FILE.yaml [--config MORE.yaml] [--key value ...]

Trains bidirectional Mamba and its rivals from YAML files.

{chr(10).join(f"  {verb:<10}{text}" for verb, text in VERBS.items())}

  bimamba VERB --help                every option of a verb
  bimamba fit --config configs/demo/vision.yaml
  bimamba fit --config configs/vision/vim_tiny.yaml --data.init_args.root DIR
  bimamba predict --config FILE.yaml --ckpt_path CKPT --prompt "a person walks" --duration 4
                                     motion for a text; --samples 3 for several
  bimamba fit --config FILE.yaml --print_config
                                     the merged configuration, defaults included

Later files and flags win over earlier ones. Results go to runs/EXPERIMENT/RUN.
  --debug      show the traceback of an error
  --version    show the version
"""


_NO_SPACE = """\
expected: free space on the disk
found: none, or a quota that is used up
where: {}
cure: free some space and go on with --resume auto; the last complete checkpoint is intact"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        args: Words after `bimamba`; `None` takes them from the shell.

    Returns:
        Exit status: 0 done, 1 failed, 2 refused with a cure, 130 interrupted, 143 terminated.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in {"-h", "--help", "help"}:
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        print(f"bimamba-suite {importlib.metadata.version('bimamba-suite')}")
        return 0
    # Read when torch is loaded. Threads of OpenMP that wait by spinning would hold the cores which
    # the scan's own threads need.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in words or os.environ.get("BIMAMBA_DEBUG") == "1"
    try:
        _check_verb(words[0])
        if words[0] in FURTHER_VERBS:
            status: int = importlib.import_module(f"bimamba.{words[0]}").main(words[1:])
            return status
        from bimamba.cli import run
        from bimamba.prompts import spelled_out

        long = spelled_out(words)
        if args is None:
            sys.argv[1:] = long  # Children of a distributed run read it again.
        run(None if args is None else long)
    except SuiteError as error:
        if debug:
            raise
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except SystemExit as stop:
        if type(stop).__name__ == "SIGTERMException":  # Lightning's, after the step was finished.
            _complain("terminated; go on with --resume auto")
            return 143
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if debug:
            raise
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            _complain(_NO_SPACE.format(getattr(error, "filename", None) or "the run directory"))
            return 1
        _complain(f"{type(error).__name__}: {error}\nrun again with --debug for the traceback")
        return 1
    return 0


def _check_verb(verb: str) -> None:
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        raise SuiteError(
            expected=f"a verb: {', '.join(VERBS)}",
            found=verb,
            where="bimamba VERB",
            cure=f"did you mean {near[0]}?" if near else "see bimamba --help",
        )


def _complain(text: str) -> None:
    print(f"bimamba: error\n{text}", file=sys.stderr)
