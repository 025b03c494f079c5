"""A run as one file: its results, configuration and weights, to be sent to somebody or put away.

The archive is a zip with the run's folder inside. What it brings in is checked by name: nothing is
written outside the new folder, nothing is overwritten, and nothing is executed.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from bimamba.run_directory import new_run_directory, release_run_directories
from bimamba.run_files import RunFiles, read_run
from blocks.errors import SuiteError
from blocks.files import atomic_path

_LEFT_OUT = ("checkpoints/", "wandb/", "tensorboard/", "hpc_ckpt_")
_MOST_FILES = 100_000


def export_run(run: RunFiles, path: Path, *, checkpoints: bool) -> list[str]:
    """Writes an archive.

    Args:
        run: A run that nobody is working on.
        path: The zip to write.
        checkpoints: Take the checkpoints, from which training goes on, instead of the weights.

    Returns:
        Names of its files.

    Raises:
        SuiteError: The file exists.
    """
    if path.suffix != ".zip" or path.exists():
        raise SuiteError(
            expected="the name of a new .zip",
            found="a file that exists" if path.exists() else path.name,
            where=str(path),
            cure="choose another name",
        )
    from bimamba.page import write_page

    write_page(run.directory)
    folder = f"{run.experiment}/{run.run}"
    files = sorted(p for p in run.directory.rglob("*") if p.is_file() and not p.is_symlink())
    names = []
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for file in files:
            name = file.relative_to(run.directory).as_posix()
            if checkpoints or not name.startswith(_LEFT_OUT):
                archive.write(file, f"{folder}/{name}")
                names.append(name)
        for name, content in _weights(run) if not checkpoints else ():
            archive.writestr(f"{folder}/{name}", content)
            names.append(name)
    return names


def import_run(path: Path, output: Path) -> Path:
    """Unpacks an archive into a new run directory.

    Args:
        path: From `export_run`.
        output: Folder above that of the experiment.

    Returns:
        The run directory.

    Raises:
        SuiteError: No archive of a run, or a run of this name exists.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _refusal(path, f"no zip: {reason}") from error
    with archive:
        entries = [e for e in archive.infolist() if not e.is_dir()]
        parts = [PurePosixPath(entry.filename).parts for entry in entries]
        safe = all(
            len(part) > 2 and not {"..", "", "."} & {*part} and not part[0].startswith("/")
            for part in parts
        )
        folders = {part[:2] for part in parts}
        if not safe or len(folders) != 1 or len(entries) > _MOST_FILES:
            raise _refusal(path, "files that are not those of one run")
        experiment, name = folders.pop()
        if not any(part[2:] == ("summary.json",) for part in parts):
            raise _refusal(path, "no summary.json")
        directory = new_run_directory(output / experiment, name, "import", create=True)
        try:
            for entry, part in zip(entries, parts, strict=True):
                target = directory.joinpath(*part[2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(target) as temporary:
                    temporary.write_bytes(archive.read(entry))
        finally:
            release_run_directories()
    read_run(directory)
    return directory


def _weights(run: RunFiles) -> Iterator[tuple[str, bytes]]:
    """`weights.safetensors` of the best checkpoint; nothing for a run without one."""
    import tempfile

    from bimamba.export import checkpoint_of, main

    try:
        checkpoint = checkpoint_of(run.directory)
    except SuiteError:
        return
    with tempfile.TemporaryDirectory(prefix="bimamba-export-") as folder:
        target = Path(folder) / "weights.safetensors"
        main([str(checkpoint), "--to", str(target)])
        yield target.name, target.read_bytes()


def _refusal(path: Path, found: str) -> SuiteError:
    return SuiteError(
        expected="an archive that bimamba runs export wrote",
        found=found,
        where=str(path),
        cure="export the run again, or unpack it by hand if you trust it",
    )
