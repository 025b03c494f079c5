"""GPU figures in one call of under 8 minutes: `python -m benchmarks.cuda`, or `make bench-cuda`.

Measures scan, mixer, model and vision in bfloat16 beside their peers, the most important first, and
writes each as soon as it is done: whatever ends the call early leaves what was measured. A subject
begins only while there is time. Anything after the command goes to every `bimamba bench`, such as
`--device cpu --quick` to try the machinery without a GPU.
"""

import sys
import time
from collections.abc import Callable, Sequence

# Seconds after which nothing new begins; the longest subject takes some 150.
_BUDGET = 330.0
_SUBJECTS = ("scan", "mixer", "model", "vision")
_DEFAULTS = ("--device", "cuda", "--dtype", "bfloat16", "--rounds", "5")


def main(
    words: Sequence[str],
    measure: Callable[[Sequence[str]], int],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Measures subject after subject.

    Args:
        words: Further options of `bimamba bench`; they replace the defaults.
        measure: Runs `bimamba bench`, given its words.
        clock: Seconds.

    Returns:
        Exit status: 1 if a subject failed or was left out.
    """
    start, missed = clock(), []
    for subject in _SUBJECTS:
        if clock() - start > _BUDGET or measure([subject, *_DEFAULTS, *words]):
            missed.append(subject)
    if missed:
        print(f"not measured: {', '.join(missed)}", file=sys.stderr)
    return int(bool(missed))


def _bench(words: Sequence[str]) -> int:
    """In a process of its own: one subject's memory and failure are not the next one's."""
    import subprocess

    return subprocess.run(
        [sys.executable, "-m", "bimamba", "bench", *words], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], _bench))
