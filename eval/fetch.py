"""The files of open tasks from the Hugging Face hub into the folder where `medvlm eval run` looks for them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

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
        raise ValueError(f"the hub did not give {task.hub} ({type(error).__name__}){terms}") from error
    return folder


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 when a task could not be fetched."""
    parser = argparse.ArgumentParser(prog="medvlm eval fetch", description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="+", help="see medvlm eval list")
    parser.add_argument("--root", type=Path, default=Path("benchmarks"), help="where the files go")
    parser.add_argument("--revision", help="of the dataset on the hub")
    args = parser.parse_args(arguments)
    status = 0
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
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
