"""The files of open tasks from the Hugging Face hub into the folder where `medvlm eval run` looks for them."""

from __future__ import annotations

import argparse
import shutil
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from rich.console import Console
from rich.progress import track

from medvlm.eval.task import Task, load
from medvlm.eval.tasks.catalogue import task_named


def fetch(task: Task, root: Path, *, revision: str | None = None) -> Path:
    """Download the dataset of ``task`` below ``root``; what is there already is not fetched again.

    Args:
        revision: of the dataset; None: the newest.

    Raises:
        ValueError: the task is on no hub, or the hub did not give it; says where the files are to be had.
    """
    if task.hub is None:
        raise ValueError(f"task {task.name} is on no hub: get it from {task.url} and put it below {root / task.folder}")
    folder = root / task.folder
    try:
        snapshot_download(task.hub, repo_type="dataset", revision=revision, local_dir=folder)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        terms = "" if task.access == "open" else f"; it is {task.access}: accept its terms at {task.url} and log in"
        raise ValueError(
            f"the hub did not give {task.hub} ({type(error).__name__}){terms}; is there a network, and is "
            f"HF_HUB_OFFLINE unset? What is here is kept: give the command again, or put the files of {task.url} "
            f"into {folder}"
        ) from error
    for archive in sorted(folder.rglob("*.zip")):
        unpack(archive)
    return folder


def unpack(archive: Path) -> int:
    """Write the files of a ZIP archive beside it, each whole or not at all; those that are there are passed over.

    Returns:
        How many were written.

    Raises:
        ValueError: the archive is damaged, or a name in it leads out of the folder.
    """
    folder, written = archive.parent.resolve(), 0
    try:
        with zipfile.ZipFile(archive) as content:
            members = [member for member in content.infolist() if not member.is_dir()]
            for member in track(members, f"unpacking {archive.name}", console=Console(stderr=True), transient=True):
                path = (folder / member.filename).resolve()
                if not path.is_relative_to(folder):
                    raise ValueError(
                        f"{archive} holds {member.filename!r}, which leads out of its folder; do not use it"
                    )
                if path.exists() and path.stat().st_size == member.file_size:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f".{path.name}.part")
                with content.open(member) as source, part.open("wb") as file:
                    shutil.copyfileobj(source, file)
                part.replace(path)
                written += 1
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{archive} is damaged ({error}); delete it and fetch again") from error
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when a task could not be fetched, 2 when none could."""
    parser = argparse.ArgumentParser(prog="medvlm eval fetch", description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="+", help="see medvlm eval list")
    parser.add_argument("--root", type=Path, default=Path("benchmarks"), help="where the files go")
    parser.add_argument("--revision", help="of the dataset on the hub")
    args = parser.parse_args(arguments)
    refused = 0
    for name in args.task:
        try:
            task = task_named(name)
            folder = fetch(task, args.root, revision=args.revision)
            found = load(task, args.root, partial=True)
            print(
                f"{task.label}: {len(found.items):,} questions in {folder}"
                + (f"; {found.differs}" * bool(found.differs))
            )
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            refused += 1
    return 0 if not refused else 2 if refused == len(args.task) else 1


if __name__ == "__main__":
    raise SystemExit(main())
