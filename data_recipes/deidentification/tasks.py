"""Which files of a folder are cleaned, by which rules, and what is left out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.deidentification.clean_names import clean_path
from medvlm.data_recipes.deidentification.keyed import Key
from medvlm.data_recipes.deidentification.known_people import Known, People
from medvlm.data_recipes.deidentification.one_file import Format, Task
from medvlm.data_recipes.deidentification.options import Options
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.progress import Track
from medvlm.data_recipes.readers.content import format_of

_ENDINGS: dict[str, Format] = {
    ".txt": "text", ".text": "text", ".md": "text", ".jsonl": "rows", ".csv": "table", ".tsv": "table",
}  # fmt: skip

_HIDDEN = ("a hidden file or folder, or a link", "give the file or folder itself, if it is needed")


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file under the source folder: what it is, or why it is left out."""

    path: Path
    format: Format | None
    refused: BadSample | None = None


def find_files(top: Path) -> list[Found]:
    """Every file under ``top``, sorted; hidden ones, links and folders that cannot be listed are left out, with why."""
    found: list[Found] = []

    def unlisted(error: OSError) -> None:
        reason = f"a folder that cannot be listed ({error.strerror})"
        found.append(_left_out(Path(error.filename), reason, "check its permissions"))

    for place, folders, names in os.walk(top, onerror=unlisted):
        found += [_left_out(Path(place) / name, *_HIDDEN) for name in sorted(folders) if _is_hidden(Path(place) / name)]
        folders[:] = sorted(name for name in folders if not _is_hidden(Path(place) / name))
        found += [_look(Path(place) / name) for name in sorted(names)]
    return found


def _look(path: Path) -> Found:
    ending = path.suffix.lower()
    try:
        if _is_hidden(path) or not path.is_file():
            return _left_out(path, *_HIDDEN)
        if ending in _ENDINGS:
            return Found(path=path, format=_ENDINGS[ending])
        if format_of(path) == "dicom":
            return Found(path=path, format="dicom")
    except OSError as error:
        return _left_out(path, f"cannot be opened ({error.strerror})", "check its permissions")
    return _left_out(
        path,
        "neither DICOM nor text, JSON lines or CSV: it is not carried over, since nothing here can clean it",
        "convert it, or copy it by hand after a review",
    )


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".") or path.is_symlink()


def _left_out(path: Path, reason: str, mend: str) -> Found:
    return Found(path=path, format=None, refused=BadSample(reason, where=str(path), mend=mend))


def state_of(path: Path) -> str:
    """Size and time of change: another state means another content."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def read_people(found: list[Found], track: Track) -> People:
    """Patients and their words from all DICOM headers; a header that cannot be read is refused later, with its file."""
    people = People()
    for one in found:
        if one.format == "dicom":
            with suppress(BadSample):  # the file itself is refused, with the reason, when it is cleaned
                people.add(one.path)
            track.advance()
    return people


def tasks_of(found: list[Found], top: Path, people: People, key: Key, options: Options) -> Iterator[Task]:
    """The work, in order; texts know who lies near them."""
    for one in found:
        if one.format is None:
            continue
        near = set() if one.format == "dicom" else people.near(one.path, top)
        yield Task(
            source=one.path,
            name=clean_path(one.path.relative_to(top).as_posix(), key, keep=options.keep_names),
            format=one.format,
            state=state_of(one.path),
            known=people.of(near) if near else Known(),
            patient=next(iter(near)) if len(near) == 1 else None,
        )
