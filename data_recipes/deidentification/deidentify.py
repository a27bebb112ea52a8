"""medvlm data deidentify: a folder of DICOM, texts, JSON lines and CSV files -> the same without what names patients.

DICOM attributes by the basic profile of PS3.15, texts by rules and, if wanted, a language model; then a second look at
the output, whose findings stand in deidentification/report.md. A person must review the result.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import get_args

from medvlm.data_recipes.deidentification.basic_profile import Option
from medvlm.data_recipes.deidentification.clean_names import clean_path
from medvlm.data_recipes.deidentification.journal import Refused, open_journal, read_journal
from medvlm.data_recipes.deidentification.keyed import ENVIRONMENT, Key, read_key
from medvlm.data_recipes.deidentification.known_people import Known, People
from medvlm.data_recipes.deidentification.leak_report import Summary, write_report
from medvlm.data_recipes.deidentification.one_file import Outcome, Task, clean_file
from medvlm.data_recipes.deidentification.options import Options, read_boxes
from medvlm.data_recipes.deidentification.pixels import available
from medvlm.data_recipes.deidentification.tasks import find_files, read_people, tasks_of
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.one_writer import one_writer
from medvlm.data_recipes.progress import tracking
from medvlm.data_recipes.whole_file import writing
from medvlm.data_recipes.worker_processes import end_with_parent

REPORTS = "deidentification"
"""Folder in the output for report.md, leaks.jsonl, quarantine.jsonl and the journal of a run that can be resumed."""


def deidentify_folder(
    source: Path, out: Path, *, key: Key, options: Options | None = None, workers: int = 1, progress: bool = False,
    mapping: Path | None = None,
) -> Summary:  # fmt: skip
    """Clean every file of ``source`` into ``out``. Files that a stopped run has finished are not done again.

    Args:
        key: what pseudonyms and offsets follow from; the same key gives the same ones in every run and machine.
        workers: processes.
        progress: show a bar on standard error.
        mapping: where to write the names of source files beside those of the output, readable by the owner only.

    Raises:
        Refused: the folders overlap, there is no source, or ``out`` holds a run with another key or other options.
    """
    options = options or Options()
    source, out = source.resolve(), out.resolve()
    check_folders(source, out)
    if options.clean_pixels != "no" and (missing := available()):
        raise Refused(f"--clean-pixels needs OCR: {missing}")
    found = find_files(source)
    if not found:
        raise Refused(f"{source} holds no file")
    journal = open_journal(out / REPORTS / "journal.jsonl", out, key, options)
    with tracking("reading headers", sum(one.format == "dicom" for one in found), show=progress) as track:
        people = read_people(found, track)
    tasks = list(tasks_of(found, source, people, key, options))
    done = {(outcome.name, outcome.state) for outcome in read_journal(journal)}
    waiting = [t for t in tasks if (t.name, t.state) not in done or not _is_there(out, t)]
    run = _Run(key=key, options=options, top=source, out=out, people=people)
    with (
        tracking("cleaning files", len(tasks), done=len(tasks) - len(waiting), show=progress) as track,
        journal.open("a", encoding="utf-8") as stream,
    ):
        for outcome in _outcomes(waiting, run, workers):
            stream.write(json.dumps(asdict(outcome)) + "\n")
            stream.flush()
            track.advance()
    if mapping is not None:
        _write_mapping(mapping, tasks, source)
    current = {(task.name, task.state) for task in tasks}
    last = {o.name: o for o in read_journal(journal) if (o.name, o.state) in current}
    left_out = [
        BadSample(
            one.refused.reason,
            where=clean_path(one.path.relative_to(source).as_posix(), key, keep=options.keep_names),
            mend=one.refused.mend,
        )
        for one in found
        if one.refused is not None
    ]
    return write_report(out / REPORTS, (last[name] for name in sorted(last)), left_out, options, key)


def check_folders(source: Path, out: Path) -> None:
    """Raises Refused: there is no source, or one folder lies in the other."""
    source, out = source.resolve(), out.resolve()
    if not source.is_dir():
        raise Refused(f"{source} is not a folder")
    if out.is_relative_to(source) or source.is_relative_to(out):
        raise Refused("the output must lie outside the source, and the source outside the output")


def _is_there(out: Path, task: Task) -> bool:
    return (out / task.name).is_file()


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What all tasks share; sent to each process once."""

    key: Key
    options: Options
    top: Path
    out: Path
    people: People

    def clean(self, task: Task) -> Outcome:
        def patient_of(paths: list[str]) -> tuple[str | None, Known]:
            patients: set[str] = set()
            for path in paths:
                for folder in (task.source.parent, self.top):
                    if (folder / path).exists():
                        patients |= self.people.near((folder / path).resolve(), self.top)
                        break
            return (next(iter(patients)) if len(patients) == 1 else None), self.people.of(patients)

        return clean_file(task, key=self.key, options=self.options, top=self.top, out=self.out, patient_of=patient_of)


_runs: list[_Run] = []
"""In a worker process: the run that it works for."""


def _begin(run: _Run) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one takes it
    end_with_parent()
    _runs.append(run)


def _clean(task: Task) -> Outcome:
    return _runs[-1].clean(task)


def _outcomes(tasks: list[Task], run: _Run, workers: int) -> Iterator[Outcome]:
    if workers <= 1 or len(tasks) < 2:
        yield from map(run.clean, tasks)
        return
    os.environ.setdefault("OMP_THREAD_LIMIT", "1")  # tesseract would start threads of its own in every process
    # spawn: a forked child of a process that runs threads can hang.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin, initargs=(run,)) as pool:
        waiting = [pool.submit(_clean, task) for task in tasks]
        try:
            for one in as_completed(waiting):
                yield one.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _write_mapping(path: Path, tasks: list[Task], source: Path) -> None:
    with writing(path) as stream:
        for task in tasks:
            row = {"source": task.source.relative_to(source).as_posix(), "clean": task.name}
            stream.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
    path.chmod(0o600)


def _options(given: argparse.Namespace) -> Options:
    return Options(
        keep=frozenset(given.keep or ()),
        private=tuple(given.keep_private or ()),
        boxes=read_boxes(given.boxes) if given.boxes else (),
        clean_pixels=given.clean_pixels,
        look=given.ocr,
        keep_names=given.keep_names,
        columns=tuple(given.columns or ()),
        id_columns=tuple(given.id_columns or ()),
        patient_column=given.patient_column,
        hash_ids=given.hash_ids,
        date_order=given.date_order,
        command=given.llm_command,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="medvlm data deidentify", description=__doc__)
    parser.add_argument("source", type=Path, help="folder of DICOM, .txt, .jsonl and .csv files")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the clean files")
    parser.add_argument("--key", type=Path, help=f"file with a secret of 16 bytes or more; else ${ENVIRONMENT}")
    parser.add_argument("--keep", nargs="+", choices=get_args(Option), help="options of PS3.15 E.3; dates are shifted")
    parser.add_argument("--keep-private", nargs="+", metavar="gggg,CREATOR,ee", help="private attributes to keep")
    parser.add_argument("--clean-pixels", choices=("no", "hinted", "all"), default="no", help="black out words")
    parser.add_argument("--boxes", type=Path, help="JSON list of rectangles to black out, see docs/deidentification.md")
    parser.add_argument("--ocr", choices=("no", "hinted", "all"), default="hinted", help="look for words in the output")
    parser.add_argument("--columns", nargs="+", help="CSV columns with free text")
    parser.add_argument("--id-columns", nargs="+", help="CSV columns replaced by pseudonyms")
    parser.add_argument("--patient-column", help="CSV column whose rows share one date offset")
    parser.add_argument("--hash-ids", action="store_true", help="pseudonyms for the ids of manifests")
    parser.add_argument("--date-order", choices=("mdy", "dmy"), help="how to read 03/04/2019 when dates are shifted")
    parser.add_argument("--llm-command", help="program: a text on standard input -> JSON spans on standard output")
    parser.add_argument("--keep-names", action="store_true", help="keep names of files and folders as they are")
    parser.add_argument("--mapping", type=Path, help="write source names beside clean names here; keep it secret")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--progress", action="store_true", help="show the bar although this is no terminal")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 nothing found, 1 identifiers found in the output, files refused or stopped, 2 refused."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        if given.mapping is not None and given.mapping.resolve().is_relative_to(given.out.resolve()):
            raise Refused("the mapping must not lie in the output")
        key, options = read_key(given.key), _options(given)
        check_folders(given.source, given.out)
        with one_writer(given.out / REPORTS / ".lock"):
            summary = deidentify_folder(
                given.source, given.out, key=key, options=options, workers=given.workers,
                progress=given.progress or sys.stderr.isatty(), mapping=given.mapping,
            )  # fmt: skip
    except (Refused, BadSample, ValueError) as error:
        print(f"medvlm data deidentify: {error}", file=sys.stderr)
        return 2
    except OSError as error:  # its own words may name a source file, and with it a patient
        print(f"medvlm data deidentify: {given.out} cannot be written ({error.strerror})", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stopped", file=sys.stderr)
        return 1
    written = sum(summary.files.values())
    print(
        f"{written} files written, {sum(summary.refused.values())} files or rows refused, "
        f"{sum(summary.found.values())} identifiers found in the output, {sum(summary.possible.values())} places "
        f"to look at: {given.out / REPORTS / 'report.md'}"
    )
    return 0 if summary.clean else 1


if __name__ == "__main__":
    raise SystemExit(main())
