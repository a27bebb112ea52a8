"""DICOM studies with reports: texts or a table, by every key; what does not match is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_fixtures import built, dicom, read_back, recipe, said

from medvlm.data_recipes.own.build import main
from medvlm.data_recipes.own.settings import load_recipe

ASK = [{"answer": "report", "prompt": "Write the report.", "kind": "report"}]
REPORT = "INDICATION: cough.\n\nFINDINGS: The lungs are clear.\n\nIMPRESSION: No acute disease."


def study(root: Path, number: int, *, slices: int = 5, series: str = "1") -> None:
    for place in range(slices):
        dicom(
            root / "scans" / f"case{number}" / f"s{series}" / f"{place}.dcm", series=f"1.2.{number}.{series}",
            study=f"1.2.{number}", accession=f"ACC{number}", patient=f"raw-id-{number}", place=2.0 * place,
        )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number in (1, 2):
        study(tmp_path, number)
    dicom(
        tmp_path / "scans" / "case2" / "scout.dcm",
        series="1.2.2.9",
        study="1.2.2",
        accession="ACC2",
        patient="raw-id-2",
    )
    (tmp_path / "texts").mkdir()
    return tmp_path


def build(home: Path, **fields):
    given = {"patient": {"dicom": True}, "ask": ASK, "reports": {"path": "texts", "by": "accession"}, **fields}
    return built(home, format="dicom", paths=["scans"], **given)


def write_texts(home: Path, names: list[str]) -> None:
    for name in names:
        (home / "texts" / f"{name}.txt").write_text(REPORT)


def test_one_sample_per_study_and_no_id_in_clear(home):
    write_texts(home, ["ACC1", "ACC2"])
    samples, refused = build(home)
    assert refused == [] and len(samples) == 2
    shown = [said(sample) for sample in sorted(samples, key=lambda sample: len(sample.visuals()))]
    assert shown == [
        [("user", [*scans, "Write the report."]), ("assistant", [REPORT])]
        for scans in (["<volume s1>"], ["<volume s1>", "<image scout.dcm>"])
    ]
    written = "".join(path.read_text() for path in (home / "out").glob("*.json*"))
    assert "raw-id" not in written and "ACC" not in written and "Doe" not in written


@pytest.mark.parametrize(("by", "names"), [
    ("study_uid", ["1.2.1", "1.2.2"]), ("patient", ["raw-id-1", "raw-id-2"]), ("folder", ["case1", "case2"]),
])  # fmt: skip
def test_every_key_finds_its_reports(home, by, names):
    write_texts(home, names)
    samples, refused = build(home, reports={"path": "texts", "by": by})
    assert refused == [] and len(samples) == 2


def test_sections_of_a_table_of_reports_and_a_patient_column(home):
    one_line = REPORT.replace("\n\n", "\n")
    (home / "reports.csv").write_text(
        f'number;who;text;sex\nACC1;p1;"{REPORT}";F\nACC2;p2;"IMPRESSION: Calm.";M\n'
        f'ACC2;p2;"{one_line}";M\nACC9;p9;;F\n',
        encoding="cp1252",
    )
    ask = [{"answer": "impression", "prompt": "Write the impression.", "kind": "report"},
           {"answer": "findings", "prompt": "Write the findings.", "optional": True}]  # fmt: skip
    samples, refused = build(
        home, ask=ask, patient={"column": "who"}, encoding="cp1252", delimiter=";", fields={"metadata": ["sex"]},
        reports={"path": "reports.csv", "by": "accession", "column": "number", "text": "text"},
        split={"all": "validation"},
    )  # fmt: skip
    answers = sorted(s.question.answers[0] for s in samples if s.question)
    assert answers == ["Calm.", "No acute disease.", "The lungs are clear."]
    assert {s.metadata["sex"] for s in samples} == {"F", "M"} and len({s.patient_id for s in samples}) == 2
    assert [line.split(". Mend")[0] for line in refused] == [
        "reports.csv:8: a report with the same key stands at " + str(home / "reports.csv:7"),
        "reports.csv:11: 'text' is empty",
    ]


def test_what_does_not_match_is_named(home):
    study(home, 3)
    dicom(home / "scans/case4/x.dcm", series="1.2.4.1", study="1.2.4")
    dicom(home / "scans/case5/x.dcm", series="1.2.5.1", study="1.2.5", accession="ACC1", patient="raw-id-5")
    torn = home / "scans" / "case3" / "s1" / "2.dcm"
    torn.write_bytes(torn.read_bytes()[:-90])
    write_texts(home, ["ACC1", "ACC3", "ACC8"])
    (home / "texts" / "ACC7.txt").write_text("  ")
    (home / "texts" / "ACC6.txt").write_bytes(b"caf\xe9")
    samples, refused = build(home)
    assert samples == []
    told = {line.split(". Mend")[0] for line in refused}
    assert {
        "texts/ACC7.txt: the report is empty",
        "texts/ACC6.txt: not utf-8 at byte 3",
        "texts/ACC8.txt: no image belongs to this report",
        "scans/case4/x.dcm: it has no AccessionNumber",
        "scans/case2/s1: 2 images or series without a report",
        "scans/case1/s1: images of different patients share the key of one report",
    } <= told
    (reading,) = [line for line in told if line.startswith("scans/case3/s1")]
    assert len(told) == 7 and "2.dcm" in reading


def test_one_sample_per_series_kinds_and_too_many(home):
    study(home, 1, series="2")
    write_texts(home, ["ACC1", "ACC2"])
    samples, refused = build(home, one_sample_per="series", kinds=["volume"])
    assert refused == [] and [len(s.visuals()) for s in samples] == [1, 1, 1]
    samples, refused = build(home, most_visuals=1)
    assert samples == [] and refused[0].endswith(
        "the study has 2 images or series, more than most_visuals: 1. Mend: write one_sample_per: series, "
        "kinds: [volume], or a larger most_visuals in the recipe"
    )


def test_lists_hold_ids_as_the_headers_write_them(home):
    write_texts(home, ["ACC1", "ACC2"])
    (home / "train.txt").write_text("raw-id-1\n")
    (home / "test.txt").write_text("raw-id-2\n")
    samples, refused = build(home, split={"lists": {"train": "train.txt", "test": "test.txt"}})
    assert refused == [] and {(len(s.visuals()), s.split) for s in samples} == {(1, "train"), (2, "test")}


def test_reports_that_are_not_there_are_refused(home, capsys):
    path = recipe(home, format="dicom", paths=["scans"], ask=ASK, reports={"path": "none", "by": "folder"})
    assert main([str(path), "--out", str(home / "out")]) == 1
    assert read_back(home / "out")[1] == [
        "none: expected a folder of .txt files. Mend: correct reports in the recipe"
    ]  # fmt: skip
    assert load_recipe(path).reports is not None
    assert "1 x " in capsys.readouterr().out
