"""Tables with images: questions, captions, reports, labels; patients and splits; other encodings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from own_fixtures import built, dicom, picture, read_back, recipe, said

from medvlm.data_recipes.own.build import main
from medvlm.data_recipes.own.json_list import read_items
from medvlm.data_recipes.own.look import look
from medvlm.data_recipes.own.rows import csv_rows, kind_of_table
from medvlm.data_recipes.splits import split_of
from medvlm.data_recipes.tables import Row

QUESTIONS = """file,who,question,answer
a.png,p1,Is there a nodule?,Yes
b.png,p1,Where is it?,left upper zone
none.png,p2,Is there a nodule?,no
a.png,p1,Is there a nodule?,
a.png,,Is there a nodule?,no
a.png,p1,Is there a nodule?
a.png,p1,,no
,p1,Is there a nodule?,no
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number, name in enumerate("abcd"):
        picture(tmp_path / "images" / f"{name}.png", number)
    return tmp_path


def table(home: Path, text: str, ask: list, saved: str = "utf-8", **fields):
    (home / "rows.csv").write_text(text, encoding=saved)
    given = {"images": "images", "patient": {"column": "who"}, "fields": {"visuals": ["file"]}, **fields}
    return built(home, format="table", paths=["rows.csv"], ask=ask, **given)


def test_questions_and_their_faults(home):
    ask = [{"answer": "answer", "prompt": "{question}", "kind": "vqa"}]
    samples, refused = table(home, QUESTIONS, ask)
    assert [said(sample) for sample in samples] == [
        [("user", ["<image a.png>", "Is there a nodule? Answer yes or no."]), ("assistant", ["yes"])],
        [("user", ["<image b.png>", "Where is it?"]), ("assistant", ["left upper zone"])],
    ]
    assert len({sample.patient_id for sample in samples}) == 1 and "p1" not in samples[0].patient_id
    assert refused == [
        f"rows.csv:4: the visual is missing ({home}/images/none.png). Mend: correct the path, or "
        "images in the recipe, or "
        "drop the row",
        "rows.csv:5: the answer ('answer') is empty. Mend: fill it in, drop the row, or write "
        "optional: true for this "
        "question in the recipe",
        "rows.csv:6: the patient ('who') is empty. Mend: fill it in or drop the row",
        "rows.csv:7: 3 cells for 4 columns. Mend: quote cells that hold the delimiter",
        "rows.csv:8: 'question' is empty. Mend: fill in 'question' or drop the row",
        "rows.csv:9: no visual is named (file). Mend: fill it in or drop the row",
    ]


def test_labels_options_and_optional_reports(home):
    text = """file;who;effusion;kind;A;B;right;report
a.png;p1;1;CXR;lung;heart;heart;Clear. No effusion, caf\u00e9.
b.png;p2;0;MRI;lung;heart;A;
c.png;p3;2;CXR;lung;heart;lung;
d.png;p4;1;CT;lung;heart;liver;
"""
    ask = [
        {
            "answer": "effusion",
            "prompt": "Is there an effusion?",
            "kind": "closed",
            "choices": ["yes", "no"],
            "values": {"1": "yes", "0": "no"},
            "topic": "presence",
        },
        {"answer": "right", "prompt": "What is shown in this {kind}?", "kind": "choice", "choice_columns": ["A", "B"]},
        {"answer": "report", "prompt": "Write the report.", "kind": "report", "optional": True},
    ]
    samples, refused = table(home, text, ask, "cp1252", encoding="cp1252", delimiter=";", split={"all": "test"})
    assert [(s.sample_id, s.question.kind, s.question.answers[0]) for s in samples if s.question] == [
        ("mine/rows/2/1", "closed", "yes"),
        ("mine/rows/2/2", "choice", "B"),
        ("mine/rows/3/1", "closed", "no"),
        ("mine/rows/3/2", "choice", "A"),
        ("mine/rows/2/3", "report", "Clear. No effusion, caf\u00e9."),
    ]
    assert samples[1].turns[0].text == "What is shown in this CXR?\nA. lung\nB. heart\nAnswer with the letter."
    assert [line.split(". Mend")[0] for line in refused] == [
        "rows.csv:4: 'effusion' is '2', which is not among the values of the recipe",
        "rows.csv:5: the answer 'liver' is not one of A, B",
    ]
    assert not (home / "out" / "train.jsonl").read_text() and (home / "out" / "test_reports.jsonl").is_file()


def test_bytes_that_are_not_utf8_are_refused_by_row(home):
    text = "file,who,label\na.png,p1,Gr\u00f6\u00dfe\nb.png,p2,plain\n"
    ask = [{"answer": "label", "prompt": "What is it?"}]
    samples, refused = table(home, text, ask, "cp1252")
    assert len(samples) == 1 and refused == [
        "rows.csv:2: not UTF-8. Mend: write encoding: cp1252 (or what the file was saved in) in the recipe"
    ]
    samples, refused = table(home, text, ask, "cp1252", encoding="cp1252")
    assert refused == [] and samples[0].turns[1].text == "Gr\u00f6\u00dfe"


def test_templates_suffixes_metadata_and_studies(home):
    text = "who,folder,stem,study,view,label\np1,images,a,s1,AP,clear\np1,images,b,s2,,clear\n"
    fields = {"visuals": ["{folder}/{stem}"], "metadata": ["view"], "study": "study"}
    ask = [{"answer": "label", "prompt": "What is it?"}]
    samples, refused = table(home, text, ask, fields=fields, images=".", suffix=".png")
    assert refused == [] and [s.metadata for s in samples] == [
        {"dimension": "2d", "topic": "other", "view": "AP"},
        {"dimension": "2d", "topic": "other"},
    ]
    assert samples[0].study_id != samples[1].study_id and samples[0].study_id.startswith(samples[0].patient_id)


def rows_of(count: int, split: str = "") -> str:
    lines = [f"{'abcd'[n % 4]}.png,p{n},label,{split}" for n in range(count)]
    return "file,who,label,split\n" + "\n".join(lines) + "\n"


ASK = [{"answer": "label", "prompt": "What is it?"}]


def test_shares_of_patients_are_met_and_patients_stay_together(home):
    text = rows_of(300) + "".join(f"a.png,p{n},again,\n" for n in range(300))
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2}
    samples, refused = table(home, text, ASK, split={"shares": shares})
    assert refused == [] and len(samples) == 600
    patients = {name: {s.patient_id for s in samples if s.split == name} for name in shares}
    assert [round(len(patients[name]) / 300, 1) for name in shares] == [0.6, 0.2, 0.2]
    assert sum(map(len, patients.values())) == 300
    assert all(split_of(s.patient_id, shares) == s.split for s in samples)


def test_splits_by_column_by_list_and_by_file(home):
    text = "file,who,label,split\na.png,p1,x,train\nb.png,p2,x,dev\nc.png,p1,x,test\nd.png,p3,x,odd\n"
    samples, refused = table(home, text, ASK, split={"column": "split"})
    assert [s.split for s in samples] == ["train", "validation"]
    assert refused == [
        "rows.csv:4: the patient of this test row is in train already (rows/2). Mend: send all rows "
        "of a patient to one "
        "split, or let split: shares decide",
        "rows.csv:5: the split ('split') is 'odd'. Mend: use one of train, training, validation, "
        "val, valid, dev, test, "
        "testing, or say in split.names what it means",
    ]
    (home / "test.txt").write_text("p2\n\n")
    (home / "train.txt").write_text("p1\n")
    samples, refused = table(home, text, ASK, split={"lists": {"train": "train.txt", "test": "test.txt"}})
    assert sorted(s.split for s in samples) == ["test", "train", "train"]
    assert refused == ["rows.csv:5: the patient is in none of split.lists. Mend: add the id to one list"]
    samples, refused = table(home, text, ASK, split={"files": {"rows.csv": "test"}})
    assert refused == [] and {s.split for s in samples} == {"test"}


def test_patients_from_paths_folders_and_headers(home):
    for number in (1, 2):
        picture(home / "images" / f"p0{number}" / "x.png", number)
        dicom(home / "images" / f"d{number}.dcm", series="1.2.3", patient=f"raw-{number}")
    text = "file,label\np01/x.png,a\np02/x.png,b\np01/x.png,c\na.png,d\n"
    samples, refused = table(home, text, ASK, patient={"path": "images/(p[0-9]+)/"})
    assert [s.patient_id == samples[0].patient_id for s in samples] == [True, False, True]
    assert refused[0].startswith("rows.csv:5: patient.path 'images/(p[0-9]+)/' finds nothing in the path of the visual")
    samples, refused = table(home, text, ASK, patient={"folder": True})
    assert refused == [] and len({s.patient_id for s in samples}) == 3
    text = "file,label\nd1.dcm,a\nd2.dcm,b\nd1.dcm,c\n"
    samples, refused = table(home, text, ASK, patient={"dicom": True})
    assert refused == [] and len({s.patient_id for s in samples}) == 2
    assert "raw-" not in "".join(path.read_text() for path in (home / "out").glob("*.json*"))


def test_a_build_without_licence_or_patient_is_refused_with_the_mend(home, capsys):
    (home / "rows.csv").write_text(rows_of(2))
    common = {"format": "table", "paths": ["rows.csv"], "ask": ASK}
    for given, line, words in (
        (
            {"licence": None},
            2,
            "the licence is empty. Mend: write licence: followed by what the holder of the files allows",
        ),
        ({"patient": None}, 3, "nothing says which patient a row is of. Mend: write patient: {column: NAME}"),
        ({"patient": {"column": None}}, 3, "patient says nothing; exactly one of column, path, folder, dicom, row is"),
        ({"patient": {"path": "images/p"}}, 3, "patient.path has 0 groups, expected one"),
        ({"split": {"shares": {"train": 0.5}}}, 5, "split.shares sum to 0.5, expected shares that sum to 1"),
        ({"colour": 1}, 13, "unknown key 'colour'"),
        ({"paths": []}, None, "exactly one of 'paths' and 'hub' is expected"),
        ({"ask": []}, None, "format table needs 'ask'"),
        ({"reader": {"scan": {}}}, None, "'reader' names 'scan'"),
    ):
        path = recipe(home, **{**common, **given})
        assert main([str(path), "--out", str(home / "out")]) == 2
        told = capsys.readouterr().err
        assert words in told and f"{path}{f':{line}' if line else ''}: " in told, told
    assert not (home / "out").exists()


def test_whole_files_that_cannot_be_read_are_refused_and_the_rest_is_kept(home):
    (home / "rows.csv").write_text(rows_of(2))
    (home / "empty.csv").write_text("")
    (home / "pretty.json").write_text(json.dumps({"a": 1}, indent=1))
    (home / "broken.json").write_text('[{"file": "a.png", "who": "p", "label": "x"}, {"file": ]')
    paths = ["none.csv", "empty.csv", "pretty.json", "broken.json", "images", "rows.csv"]
    samples, refused = built(
        home,
        format="table",
        paths=paths,
        ask=ASK,
        images="images",
        fields={"visuals": ["file"]},
        patient={"column": "who"},
    )
    assert [s.sample_id for s in samples] == ["mine/broken/1", "mine/rows/2", "mine/rows/3"]
    assert [line.removeprefix(f"{home}/").split(". Mend")[0] for line in refused] == [
        "none.csv: no such file",
        "empty.csv: no JSON, JSON lines, CSV or Parquet, going by its content, and no folder of datasets",
        "pretty.json: one JSON object over many lines",
        "broken.json:2: not JSON: Expecting value in item 2; the rest of the file is not read",
        "images: no JSON, JSON lines, CSV or Parquet, going by its content, and no folder of datasets",
    ]


def test_a_file_named_twice_gives_no_row_twice(home):
    (home / "rows.csv").write_text(rows_of(1))
    samples, refused = built(
        home,
        format="table",
        paths=["rows.csv", "./rows.csv"],
        ask=ASK,
        images="images",
        fields={"visuals": ["file"]},
        patient={"column": "who"},
    )
    assert len(samples) + len(refused) == 2 and len(samples) == 2  # two names are two files; ids differ
    assert {s.sample_id for s in samples} == {"mine/1-rows/2", "mine/2-rows/2"}


def test_limit_workers_and_what_was_read_before(home, capsys):
    (home / "rows.csv").write_text(rows_of(9))
    path = recipe(
        home,
        format="table",
        paths=["rows.csv"],
        ask=ASK,
        images="images",
        fields={"visuals": ["file"]},
        patient={"column": "who"},
    )
    out = home / "out"
    assert main([str(path), "--out", str(out), "--limit", "3"]) == 0
    assert "No sample is in test: see split in the recipe." in capsys.readouterr().out
    assert len(read_back(out)[0]) == 3
    assert json.loads((out / "summary.json").read_text())["rows"] == 3
    (home / "images" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n broken since")
    assert main([str(path), "--out", str(out)]) == 1  # done, but three rows are in the quarantine
    assert "quarantine.jsonl tells why each was refused; this first:\n  3 x " in capsys.readouterr().out
    samples, refused = read_back(out)
    assert len(samples) == 6 and len(refused) == 3


@pytest.mark.slow
def test_two_processes_write_what_one_writes(home):
    (home / "rows.csv").write_text(rows_of(20))
    path = recipe(
        home,
        format="table",
        paths=["rows.csv"],
        ask=ASK,
        images="images",
        fields={"visuals": ["file"]},
        patient={"column": "who"},
    )
    assert main([str(path), "--out", str(home / "one")]) == 0
    assert main([str(path), "--out", str(home / "two"), "--workers", "2"]) == 0
    assert (home / "one" / "train.jsonl").read_bytes() == (home / "two" / "train.jsonl").read_bytes()


def test_a_long_json_list_is_read_item_by_item(tmp_path):
    rows = [{"n": number, "text": '\u00e9 ] } , " \\ ' * 40} for number in range(6000)]
    path = tmp_path / "long.json"
    path.write_text("  " + json.dumps(rows, indent=1), encoding="utf-8")
    assert path.stat().st_size > 2 << 20
    assert [item[1] for item in read_items(path) if isinstance(item, tuple)] == rows
    path.write_text("[1, 22 ,3]")
    assert list(read_items(path)) == [(1, 1), (2, 22), (3, 3)]
    path.write_text("[1, 2")
    assert "the list is not closed in item 2" in str(list(read_items(path))[-1])


def test_csv_rows_keep_line_breaks_in_cells(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('\ufeffa,b\n1,"two\nlines"\n\n3,4\n', encoding="utf-8")
    rows = [row for row in csv_rows(path, "utf-8", ",") if isinstance(row, Row)]
    assert [(row.number, row.values) for row in rows] == [
        (2, {"a": "1", "b": "two\nlines"}),
        (5, {"a": "3", "b": "4"}),
    ]
    assert kind_of_table(path) == "csv"


def test_what_spreadsheets_write(home):
    text = "file\twho\tlabel\t\t\na.png\tp1\tx\t\t\n"
    samples, refused = table(home, text, ASK, "utf-16", encoding="utf-16", delimiter="\t")
    assert refused == [] and len(samples) == 1
    found = look(home)
    assert [(one.encoding, one.delimiter, one.columns) for one in found.tables if one.kind == "csv"] == [
        ("utf-16", "\t", ("file", "who", "label"))
    ]


def test_options_of_readers_and_the_modality_that_files_state(home):
    dicom(home / "images" / "ct.dcm", series="1.2.3")
    text = "file,who,label\na.png,p1,x\nct.dcm,p2,x\n"
    samples, refused = table(home, text, ASK, reader={"image": {"modality": "CR"}})
    assert [s.metadata.get("modality") for s in samples] == ["CR"]
    assert len(refused) == 1 and "options.modality means nothing for this image" in refused[0]
    samples, refused = table(home, text, ASK)
    assert refused == [] and [s.metadata.get("modality") for s in samples] == [None, "CT"]
