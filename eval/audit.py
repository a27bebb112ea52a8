"""How often are answers misread? A sheet for a human to mark, and what the marked sheet says.

    medvlm eval audit RUN                      writes RUN/audit.csv and RUN/audit.html, an equal number from every rule
    medvlm eval audit RUN --marked audit.csv   the share of answers that were misread, with an interval

In the sheet a person fills in ``human_reads``: the choice that the answer names (its text or letter), "none" when it
names none or several, or "same" when what was read is right; and, if wanted, ``human_correct`` (yes or no): whether the
answer is right, which tells how far the marks, or a judge, can be believed.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_atomic
from medvlm.data_recipes.sample import Question
from medvlm.data_recipes.tables import read_csv
from medvlm.eval.extract import choice_index, options
from medvlm.eval.intervals import wilson
from medvlm.eval.plan import Ask
from medvlm.eval.rows import Row, write_json
from medvlm.eval.run_folder import read_plan, responses_of
from medvlm.eval.stages import scores_of

READ = ("closed", "choice", "labels", "span", "json", "box")
"""Kinds whose answer has to be read out of what was written; of the others the text itself is the answer."""

COLUMNS = (
    "request_id", "stratum", "of", "condition", "question", "choices", "reference", "written", "read_as", "rule",
    "marked_right", "human_reads", "human_correct",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Stratum:
    """Answers that one rule read and the scorer marked alike.

    Attributes:
        answers: in the run.
        marked: of them, by the human.
        misread: of those marked.
    """

    name: str
    answers: int
    marked: int
    misread: int


def right(row: Row) -> bool | None:
    """Whether a row of scores.jsonl was marked right; None where marks are no yes or no."""
    for key in ("correct", "exact_match"):
        if key in row:
            return bool(row[key])
    return None


def _stratum(row: Row) -> str:
    mark = right(row)
    return (
        f"{row['kind']}, {row['rule']}, {'marked right' if mark else 'marked wrong' if mark is False else 'unmarked'}"
    )


def sheet(out: Path, *, each: int = 15, seed: int = 0) -> list[Row]:
    """Rows of the sheet: ``each`` answers, or all, from every rule and mark, in a seeded order.

    Raises:
        ValueError: nothing was scored, or ``out`` is no run folder.
    """
    asks = {ask.request_id: ask for ask in read_plan(out)}
    texts = {row["request_id"]: row["text"] for row in responses_of(out)}
    strata: dict[str, list[Row]] = defaultdict(list)
    for row in scores_of(out):
        strata[_stratum(row)].append(row)
    rows: list[Row] = []
    for name in sorted(strata):
        drawn = sorted(strata[name], key=lambda row: str(row["request_id"]))
        random.Random(f"{seed}/{name}").shuffle(drawn)
        rows += [_sheet_row(row, asks[row["request_id"]], texts, name, len(drawn)) for row in drawn[:each]]
    return rows


def _sheet_row(row: Row, ask: Ask, texts: Mapping[str, str], stratum: str, size: int) -> Row:
    mark = right(row)
    return {
        "request_id": row["request_id"],
        "stratum": stratum,
        "of": size,
        "condition": row["condition"],
        "question": ask.prompt,
        "choices": " | ".join(options(ask.question, ask.prompt)),
        "reference": "; ".join(ask.question.answers),
        "written": texts[row["request_id"]],
        "read_as": _read_as(row),
        "rule": row["rule"],
        "marked_right": "" if mark is None else "yes" if mark else "no",
        "human_reads": "",
        "human_correct": "",
    }


def write_sheet(out: Path, rows: Sequence[Row]) -> None:
    """audit.csv, for a spreadsheet, and audit.html, to be marked in a browser that then gives the same table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(out / "audit.csv", text.getvalue())
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    write_atomic(out / "audit.html", environment.get_template("audit.html").render(rows=rows, columns=list(COLUMNS)))


def _read_as(row: Row) -> str:
    return "none" if row["value"] is None else str(row["value"])


def _agrees(question: Question, prompt: str, read_as: str, human: str) -> bool | None:
    """Whether a human reads what was read; None when the human's word is neither a choice nor "none"."""
    said = human.strip()
    if said.lower() == "same":
        return True
    if said.lower() == "none" or read_as == "none":
        return (said.lower() == "none") == (read_as == "none")
    if question.kind not in ("closed", "choice"):
        return " ".join(said.lower().split()) == " ".join(read_as.lower().split())
    place = choice_index(question, said, prompt)
    return None if place is None else options(question, prompt)[place] == read_as


def read_marked(out: Path, path: Path) -> dict[str, Any]:
    """What the marked sheet says; written to audit.json.

    Returns:
        {"misread": {value, low, high, marked}, "strata", "human_agrees": {...}}. Rules are drawn unequally, so each
        counts as often as it read answers in the run; the interval is Wilson's with the effective number of marks (Kish
        1965).

    Raises:
        ValueError: a row is of another run, holds a word that is no choice, or nothing was marked.
    """
    asks = {ask.request_id: ask for ask in read_plan(out)}
    scores = {row["request_id"]: row for row in scores_of(out)}
    sizes = Counter(map(_stratum, scores.values()))
    seen: set[str] = set()
    marked: Counter[str] = Counter()
    misread: Counter[str] = Counter()
    agree: Counter[tuple[str, str]] = Counter()
    for row in read_csv(path, required=COLUMNS):
        if isinstance(row, BadSample):
            raise ValueError(str(row))
        ask = asks.get(row.text("request_id"))
        if ask is None:
            raise ValueError(f"{row.where}: request {row.text('request_id')} is not of this run; mark its own sheet")
        stratum, human = row.text("stratum"), row.written("human_reads")
        name = row.text("request_id")
        if name in seen:
            raise ValueError(f"{row.where}: request {name} stands in the sheet twice; keep one row")
        seen.add(name)
        now = scores.get(name)
        if now is None or _stratum(now) != stratum or _read_as(now).split() != row.written("read_as").split():
            raise ValueError(
                f"{row.where}: request {name} was read or marked otherwise when the sheet was drawn; draw a new sheet, "
                "since a human's word on the old reading says nothing of this one"
            )
        if human:
            same = _agrees(ask.question, ask.prompt, row.written("read_as"), human)
            if same is None:
                shown = " | ".join(options(ask.question, ask.prompt))
                raise ValueError(f"{row.where}: human_reads is {human!r}; write one of {shown}, none or same")
            marked[stratum] += 1
            misread[stratum] += not same
        verdict = row.written("human_correct").lower()
        if verdict:
            if verdict not in ("yes", "no"):
                raise ValueError(f"{row.where}: human_correct is {verdict!r}; write yes or no")
            agree[row.written("marked_right"), verdict] += 1
    if not marked and not agree:
        raise ValueError(f"{path} holds no mark; fill in human_reads (or human_correct) and give it again")
    strata = [
        Stratum(name=name, answers=sizes[name], marked=marked[name], misread=misread[name]) for name in sorted(sizes)
    ]
    result = {
        "misread": _weighted(strata),
        "strata": [asdict(one) for one in strata],
        "human_agrees": _agreement(agree),
    }
    write_json(out / "audit.json", result)
    return result


def _weighted(strata: Sequence[Stratum]) -> dict[str, Any]:
    """Share of misread answers over the strata that were marked, each by its number of answers."""
    seen = [one for one in strata if one.marked]
    total = sum(one.answers for one in seen)
    if not total:
        return {"value": None, "low": None, "high": None, "marked": 0, "answers_covered": 0}
    value = sum(one.answers / total * one.misread / one.marked for one in seen)
    effective = 1 / sum((one.answers / total) ** 2 / one.marked for one in seen)
    low, high = wilson(value * effective, effective)
    return {
        "value": value, "low": low, "high": high, "marked": sum(one.marked for one in seen), "answers_covered": total
    }  # fmt: skip


def _agreement(counts: Mapping[tuple[str, str], int]) -> dict[str, Any]:
    """Of answers that were marked right or wrong by both: the share that agrees, and Cohen's kappa."""
    both = {pair: n for pair, n in counts.items() if pair[0] in ("yes", "no")}
    n = sum(both.values())
    if not n:
        return {"n": 0, "share": None, "kappa": None}
    share = sum(count for (ours, human), count in both.items() if ours == human) / n
    ours = sum(count for (mark, _), count in both.items() if mark == "yes") / n
    human = sum(count for (_, mark), count in both.items() if mark == "yes") / n
    chance = ours * human + (1 - ours) * (1 - human)
    return {"n": n, "share": share, "kappa": None if chance == 1 else (share - chance) / (1 - chance)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 2 when the run or the sheet cannot be used."""
    parser = argparse.ArgumentParser(
        prog="medvlm eval audit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder, the --out of medvlm eval run")
    parser.add_argument("--marked", type=Path, help="the sheet, marked")
    parser.add_argument("--each", type=int, default=15, help="answers of every rule and mark in the sheet")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    try:
        if args.marked is None:
            rows = sheet(args.run, each=args.each, seed=args.seed)
            write_sheet(args.run, rows)
            print(f"{len(rows)} answers in {args.run / 'audit.csv'} and {args.run / 'audit.html'}")
            return 0
        result = read_marked(args.run, args.marked)
    except (ValueError, BadSample) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found, agrees = result["misread"], result["human_agrees"]
    if found["value"] is not None:
        print(
            f"misread: {100 * found['value']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f}) of "
            f"{found['answers_covered']} answers, by {found['marked']} marks"
        )
    for one in result["strata"]:
        state = f"{one['misread']} of {one['marked']} misread" if one["marked"] else "not marked"
        print(f"  {one['name']:40} {one['answers']:6} answers, {state}")
    if agrees["n"]:
        kappa = "undefined" if agrees["kappa"] is None else f"{agrees['kappa']:.2f}"
        print(f"marks agree with the human on {100 * agrees['share']:.1f} % of {agrees['n']}, kappa {kappa}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
