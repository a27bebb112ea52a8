"""The sheet holds every rule, and the marked sheet says how often answers were misread."""

import csv
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evaluation_fixtures import samples_of, write_manifest, write_visuals

from medvlm.eval.audit import COLUMNS, main, read_marked, sheet
from medvlm.eval.intervals import wilson
from medvlm.eval.models import Response
from medvlm.eval.run import Settings, evaluate

WRITTEN = ("yes", "No.", "The answer is left", "<script>alert(1)</script> I cannot determine it", "right, I think", "B")


class Rambling:
    name = "rambling"

    def answer(self, requests):
        return [Response(text=WRITTEN[int(one.request_id, 16) % len(WRITTEN)]) for one in requests]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    write_visuals(folder, 8)
    manifest = write_manifest(folder / "m.jsonl", [s for p in range(8) for s in samples_of(p)])
    evaluate(Rambling(), [manifest], folder / "run", Settings(conditions=("image",)), gallery_size=1)
    return folder / "run"


def marked(run: Path, path: Path, fill) -> Path:
    rows = list(csv.DictReader((run / "audit.csv").open(encoding="utf-8")))
    for number, row in enumerate(rows):
        row |= fill(number, row)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_every_rule_is_in_the_sheet(run, capsys):
    assert main([str(run), "--each", "3"]) == 0
    rows = list(csv.DictReader((run / "audit.csv").open(encoding="utf-8")))
    scores = [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]
    assert {(row["rule"]) for row in rows} == {row["rule"] for row in scores}
    strata = {row["stratum"] for row in rows}
    assert all(sum(row["stratum"] == name for row in rows) <= 3 for name in strata) and len(strata) > 5
    assert rows == [{key: str(value) for key, value in row.items()} for row in sheet(run, each=3)], "seeded"
    page = (run / "audit.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page and page.count("<article") == len(rows)


def test_a_sheet_without_faults_has_an_interval_above_zero(run, tmp_path):
    main([str(run), "--each", "4"])
    result = read_marked(run, marked(run, tmp_path / "all.csv", lambda *_: {"human_reads": "same"}))
    assert result["misread"]["value"] == 0.0 and 0.0 < result["misread"]["high"] < 0.2
    assert json.loads((run / "audit.json").read_text()) == result


def test_rules_count_by_their_answers_not_by_their_marks(run, tmp_path):
    main([str(run), "--each", "4"])
    first = sheet(run, each=4)[0]["stratum"]

    def fill(_, row):
        return {"human_reads": "same" if row["stratum"] != first else ("none" if row["read_as"] != "none" else "A")}

    result = read_marked(run, marked(run, tmp_path / "one.csv", fill))
    sizes = {one["name"]: one for one in result["strata"]}
    share = sizes[first]["answers"] / sum(one["answers"] for one in sizes.values())
    assert sizes[first]["misread"] == sizes[first]["marked"] and result["misread"]["value"] == pytest.approx(share)
    assert result["misread"]["low"] < share < result["misread"]["high"]


def test_equal_strata_give_wilson_itself(run):
    from medvlm.eval.audit import Stratum, _weighted

    same = [Stratum(name=str(n), answers=100, marked=10, misread=2) for n in range(5)]
    found = _weighted(same)
    assert (found["low"], found["high"]) == pytest.approx(wilson(10, 50))


def test_agreement_with_the_human(run, tmp_path, capsys):
    main([str(run), "--each", "4"])
    path = marked(run, tmp_path / "judged.csv", lambda _, row: {"human_correct": row["marked_right"] or "yes"})
    result = read_marked(run, path)
    assert result["human_agrees"]["share"] == result["human_agrees"]["kappa"] == 1.0
    assert main([str(run), "--marked", str(path)]) == 0 and "kappa 1.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        ({"human_reads": "perhaps"}, "write one of"),
        ({"human_correct": "maybe"}, "write yes or no"),
        ({"request_id": "abc"}, "is not of this run"),
        ({}, "holds no mark"),
    ],
)
def test_a_sheet_that_cannot_be_used_says_what_to_write(run, tmp_path, capsys, fill, said):
    main([str(run), "--each", "2"])
    closed = next(
        n
        for n, row in enumerate(sheet(run, each=2))
        if row["stratum"].startswith("closed") and row["read_as"] != "none"
    )
    path = marked(run, tmp_path / "bad.csv", lambda number, _: fill if number == closed else {})
    assert main([str(run), "--marked", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_sheet_of_another_reading_is_refused(run, tmp_path):
    main([str(run), "--each", "3"])
    path = marked(run, tmp_path / "old.csv", lambda number, row: {"human_reads": "same", "read_as": "read otherwise"})
    with pytest.raises(ValueError, match="was read or marked otherwise when the sheet was drawn"):
        read_marked(run, path)
    path = marked(run, tmp_path / "twice.csv", lambda number, row: {"human_reads": "same"})
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "more.csv").write_text("".join([*lines, *lines[1:]]), encoding="utf-8")
    with pytest.raises(ValueError, match="stands in the sheet twice"):
        read_marked(run, tmp_path / "more.csv")
