"""What was found in a folder -> a first recipe, with the reason of each guess; never a licence, never a patient."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medvlm.data_recipes.own.look import Table
from medvlm.data_recipes.own.settings import ALIASES, KEYS_OF_VISUALS, Ask, Fields, Format, SplitBy

_QUESTION = ("question", "query", "instruction", "frage", "pregunta", "pergunta", "domanda")
_ANSWER = (
    "answer", "answers", "response", "output", "antwort", "respuesta", "resposta", "risposta", "réponse", "reponse",
)  # fmt: skip
_REPORT = re.compile(
    r"report|finding|impression|note|narrative|conclusion|befund|beurteilung|informe|laudo|referto|compte.?rendu",
    re.IGNORECASE,
)
_LABEL = re.compile(r"label|class|diagnos|finding|category|target", re.IGNORECASE)
_PATIENT = re.compile(r"patient|subject|person|pat_?id|mrn|case|pa[cz]ient|fall_?(nummer|nr|id)", re.IGNORECASE)
_SPLIT = ("split", "set", "subset", "fold", "phase", "partition")
_OPTION = re.compile(r"^(?:option|choice|opt)?[ _]?([a-eA-E])$")
DEFAULT_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
LONG_TEXT = 60
"""Mean characters from which on a column is prose and not a label."""


@dataclass(frozen=True, kw_only=True)
class Guess:
    """The beginning of a recipe.

    Attributes:
        why: field of the recipe -> what speaks for it, in a few words.
        patients: columns that may tell patients apart.
    """

    format: Format
    fields: Fields
    images: Path
    suffix: str
    ask: tuple[Ask, ...]
    split: SplitBy
    why: dict[str, str]
    patients: tuple[str, ...]


def guess(tables: tuple[Table, ...], visuals: dict[str, list[Path]]) -> Guess:
    """Guess from the first table; ``tables`` are files of the same columns."""
    table = tables[0]
    shape, turns, why = shape_of(table)
    column, base, suffix, resolved = visual_column(table, visuals)
    usual = column in KEYS_OF_VISUALS or column is None
    fields = Fields(visuals=() if usual or column is None else (column,), turns=turns)
    reasons = {"format": why}
    if column is not None:
        reasons["images"] = f"{resolved} of the first {len(table.rows)} rows name files in {column!r} that are there"
    ask = questions(table, column) if shape == "table" else ()
    if ask:
        reasons["ask"] = "; ".join(f"{one.answer!r} {_reason(table, one)}" for one in ask)
    split, reasons["split"] = split_by(tables)
    return Guess(
        format=shape, fields=fields, images=base, suffix=suffix, ask=ask, split=split, why=reasons,
        patients=tuple(name for name in table.columns if _PATIENT.search(name) or (name == column and not usual)),
    )  # fmt: skip


def shape_of(table: Table) -> tuple[Format, str | None, str]:
    """(format, key of the turns where it is not the usual one, why)."""
    for name in table.columns:
        keys = _keys_of_turns(value for row in table.rows if (value := row.get(name)))
        if {"from", "value"} <= keys:
            return "llava", None if name == "conversations" else name, f"{name!r} holds turns with from and value"
    if {"chosen", "rejected"} <= set(table.columns):
        return "preferences", None, "there are 'chosen' and 'rejected'"
    for name in table.columns:
        keys = _keys_of_turns(value for row in table.rows if (value := row.get(name)))
        if {"role", "content"} <= keys and name not in ("prompt", "completion"):
            return "messages", None if name == "messages" else name, f"{name!r} holds turns with role and content"
    if {"prompt", "completion"} <= set(table.columns):
        return "messages", None, "there are 'prompt' and 'completion'"
    return "table", None, "the rows have columns and no conversations"


def _keys_of_turns(values: Any) -> set[str]:
    first = next((value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)), None)
    return set(first[0]) if first else set()


def visual_column(table: Table, visuals: dict[str, list[Path]]) -> tuple[str | None, Path, str, int]:
    """(column that names files, folder against which its paths stand, suffix to add, rows that resolve)."""
    best: tuple[str | None, Path, str, int] = (None, table.path.parent, "", 0)
    if table.pictures:
        return table.pictures[0], table.path.parent, "", len(table.rows)
    stems: dict[str, list[Path]] = {}
    for paths in visuals.values():
        for path in paths:
            stems.setdefault(path.name.removesuffix("".join(path.suffixes)), []).append(path)
    for name in table.columns:
        votes: Counter[tuple[Path, str]] = Counter()
        for row in table.rows:
            value = row.get(name)
            first = value[0] if isinstance(value, list) and value else value
            if isinstance(first, str) and 0 < len(first.strip()) < 400:
                votes.update(_places(first.strip(), table.path.parent, visuals, stems))
        if votes:
            (base, suffix), count = votes.most_common(1)[0]
            if count > best[3] and count >= 0.5 * len(table.rows):
                best = (name, base, suffix, count)
    return best


def _places(
    written: str, folder: Path, visuals: dict[str, list[Path]], stems: dict[str, list[Path]]
) -> set[tuple[Path, str]]:
    """Folders (with a suffix) under which ``written`` is a file."""
    name = PurePosixPath(written.replace("\\", "/")).name
    found: set[tuple[Path, str]] = set()
    for path in visuals.get(name, []):
        if path.as_posix().endswith(f"/{written}"):
            found.add((Path(path.as_posix().removesuffix(f"/{written}")), ""))
    if not found and "/" in written and _is_there(folder / written):
        found.add((folder, ""))
    if not found and len(written) > 1:
        for path in stems.get(name, []):
            suffix = "".join(path.suffixes)
            if path.as_posix().endswith(f"/{written}{suffix}"):
                found.add((Path(path.as_posix().removesuffix(f"/{written}{suffix}")), suffix))
    return found


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False  # A text that is no path at all, such as one that is too long for a name.


def _texts(table: Table, name: str) -> list[str]:
    values = (row.get(name) for row in table.rows)
    return [text for v in values if isinstance(v, str | int | float) and (text := str(v).strip())]


def _mean_length(texts: list[str]) -> float:
    return sum(map(len, texts)) / len(texts) if texts else 0.0


def _named(table: Table, names: tuple[str, ...]) -> str | None:
    return next((column for name in names for column in table.columns if column.lower() == name), None)


def questions(table: Table, visual: str | None) -> tuple[Ask, ...]:
    """Question and answer; else prose (captions, reports); else labels."""
    question, answer = _named(table, _QUESTION), _named(table, _ANSWER)
    if question is not None and answer is not None:
        options = tuple(name for name in table.columns if _OPTION.match(name))
        if len(options) >= 2:
            return (Ask(answer=answer, prompt=f"{{{question}}}", kind="choice", choice_columns=options),)
        return (Ask(answer=answer, prompt=f"{{{question}}}", kind="vqa"),)
    rest = [name for name in table.columns if name and name != visual and not _PATIENT.search(name)]
    prose = [name for name in rest if _is_prose(_texts(table, name))]
    if prose:
        return tuple(_prose(table, name) for name in prose)
    found = [_label(table, name) for name in rest]
    return tuple(one for one in found if one is not None)


def _is_prose(texts: list[str]) -> bool:
    return _mean_length(texts) >= LONG_TEXT and sum(" " in text for text in texts) > 0.9 * len(texts)


def _prose(table: Table, name: str) -> Ask:
    optional = len(_texts(table, name)) < len(table.rows)
    if _REPORT.search(name):
        return Ask(answer=name, prompt="Write the report.", kind="report", topic="report", optional=optional)
    return Ask(answer=name, prompt="Describe what is shown.", topic="caption", optional=optional)


def _label(table: Table, name: str) -> Ask | None:
    texts = _texts(table, name)
    values = sorted(set(texts))
    optional = len(texts) < len(table.rows)
    spoken = name.replace("_", " ").strip().lower()
    if len(table.rows) > 2 and set(values) in ({"0", "1"}, {"0.0", "1.0"}):
        said = dict(zip(values, ("no", "yes"), strict=True))
        return Ask(
            answer=name, prompt=f"Is there {spoken}?", kind="closed", choices=("yes", "no"), values=said,
            topic="presence", optional=optional,
        )  # fmt: skip
    if not _LABEL.search(name) or not values:
        return None
    if 2 <= len(values) <= 6:
        return Ask(
            answer=name, prompt=f"What is the {spoken}?", kind="closed", choices=tuple(values), optional=optional
        )
    return Ask(answer=name, prompt=f"What is the {spoken}?", optional=optional)


def _reason(table: Table, one: Ask) -> str:
    texts = _texts(table, one.answer)
    if one.kind == "vqa" or one.kind == "choice":
        return "answers the question beside it"
    if _is_prose(texts):
        return f"is prose, {_mean_length(texts):.0f} characters on average"
    return f"has {len(set(texts))} different values in {len(texts)} rows"


def split_by(tables: tuple[Table, ...]) -> tuple[SplitBy, str]:
    """A column that names splits, files named after splits, else shares of the patients."""
    table = tables[0]
    for name in table.columns:
        values = set(_texts(table, name))
        if name.lower() in _SPLIT and values and values <= set(ALIASES):
            return SplitBy(column=name), f"{name!r} writes {', '.join(sorted(values))}"
    named = {one.path: _split_in(one.path.stem) for one in tables}
    if len(tables) > 1 and all(named.values()):
        files = {str(path): split for path, split in named.items() if split is not None}
        return SplitBy(files=files), "the files are named after splits"  # type: ignore[arg-type]
    return SplitBy(shares=dict(DEFAULT_SHARES)), "nothing names splits: a hash of the patient decides"


def _split_in(stem: str) -> str | None:
    words = re.split(r"[^a-z]+", stem.lower())
    return next((ALIASES[word] for word in words if word in ALIASES), None)
