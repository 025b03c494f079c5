"""One benchmark from settings to files: measured, compared with the targets, written, drawn."""

import importlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from benchmarks.pictures import draw
from benchmarks.settings import Settings, Tell, check_settings, equal_threads
from benchmarks.targets import Target, targets
from blocks.files import write_json


def measure(subject: str, settings: Settings, tell: Tell) -> tuple[dict[str, Any], list[Target]]:
    """Measures a subject.

    Args:
        subject: `scan`, `mixer`, `model` or `vision`.
        settings: How.
        tell: Hears what is being done.

    Returns:
        The content of its JSON: where and how it was measured, `results` and `targets`. The targets
        are returned beside it too.

    Raises:
        SuiteError: The settings make no sense here.
    """
    check_settings(settings)
    with equal_threads(settings.threads):
        # Networks bring Lightning along, which the scan can do without.
        module = importlib.import_module(f"benchmarks.{subject}")
        where = environment(settings)
        results = getattr(module, f"measure_{subject}")(settings, tell)
        promised = targets(subject, results, settings)
        document = {
            "subject": subject,
            **where,
            "settings": asdict(settings) | {"rounds": settings.turns},
            "results": results,
            "targets": [target.as_dict() for target in promised],
        }
    return document, promised


def write(subject: str, settings: Settings, document: dict[str, Any], folder: Path) -> list[Path]:
    """Writes `SUBJECT_DEVICE.json` and `.png`.

    Args:
        subject: `scan`, `mixer`, `model` or `vision`.
        settings: They name the files: a quick or partial run never replaces figures of record.
        document: What `measure` returned.
        folder: Where to; made if need be.

    Returns:
        Both paths.
    """
    path = folder / f"{subject}_{settings.suffix}.json"
    write_json(path, document)
    draw(subject, document, path.with_suffix(".png"))
    return [path, path.with_suffix(".png")]
