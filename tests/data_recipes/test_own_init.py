"""medvlm data init looks at a folder and writes a recipe that builds once two lines are filled in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from own_fixtures import dicom, jsonl, picture, read_back

from medvlm.data_recipes.own import build, init
from medvlm.data_recipes.own.private import examples, named_like_an_identifier
from medvlm.data_recipes.own.settings import load_recipe
from medvlm.scripts.cli import main as medvlm


def fill_in(recipe: Path, patient: str) -> None:
    text = recipe.read_text()
    assert re.findall(r"^# >>> FILL IN", text, re.MULTILINE) == ["# >>> FILL IN"] * 2
    text = re.sub(r"^licence:.*$", "licence: own", text, flags=re.MULTILINE)
    recipe.write_text(re.sub(r"^patient:.*$", f"patient: {patient}", text, flags=re.MULTILINE))


def run(folder: Path, patient: str, capsys) -> tuple[list, list[str], str, str]:
    """init, a refused build, two lines, a build: (samples, refused, the recipe, what init said)."""
    recipe, out = folder.parent / "recipe.yaml", folder.parent / "out"
    assert medvlm(["data", "init", str(folder), "--out", str(recipe)]) == 0
    told = capsys.readouterr().out
    assert f"  medvlm data build {recipe} --out data\n" in told
    assert medvlm(["data", "build", str(recipe), "--out", str(out)]) == 2
    assert "the licence is empty. Mend: write licence: followed by what" in capsys.readouterr().err
    fill_in(recipe, patient)
    assert medvlm(["data", "build", str(recipe), "--out", str(out)]) == 0
    samples, refused = read_back(out)
    return samples, refused, recipe.read_text(), told


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "my data"
    for number in range(6):
        picture(home / "pictures" / f"case{number}.png", number)
    return home


def test_a_table_of_a_spreadsheet(home, capsys):
    lines = ["Bild;PatientID;Radiologe;Befund;Infiltrat"]
    finding = (
        "Kein Erguss, kein Infiltrat. Gr\u00f6\u00dfe des Herzens normal, Patient Jane Doe, MRN: 1234567, 03.04.2021."
    )
    for number in range(6):
        lines.append(f"case{number}.png;raw-{number // 2};Jane Doe;{finding};{number % 2}")
    (home / "tabelle.csv").write_text("\n".join(lines) + "\n", encoding="cp1252")
    samples, refused, recipe, told = run(home, "{column: PatientID}", capsys)
    assert refused == [] and len(samples) == 6 and len({s.patient_id for s in samples}) == 3
    assert "encoding: cp1252" in recipe and 'delimiter: ";"' in recipe and "# the rows leave it out" not in recipe
    assert '#   patient: {column: "PatientID"}' in recipe
    assert 'Infiltrat: "0", "1"' in recipe
    for private in ("Doe", "raw-", "1234567", "03.04", "case1"):
        assert private not in recipe and private not in told


def test_llava_json_with_names_of_splits(home, capsys):
    def rows(numbers: range) -> str:
        turns = [{"from": "human", "value": "<image>\nIs it big?"}, {"from": "gpt", "value": "Yes."}]
        return json.dumps([{"id": n, "image": f"case{n}.png", "conversations": turns} for n in numbers])

    (home / "train.json").write_text(rows(range(4)))
    (home / "val.json").write_text(rows(range(4, 6)))
    samples, refused, recipe, _ = run(home, "{column: image}", capsys)
    assert refused == [] and sorted(s.split for s in samples) == ["train"] * 4 + ["validation"] * 2
    assert load_recipe(home.parent / "recipe.yaml").format == "llava"
    assert "6 picture, 2 table" in recipe


def test_preferences_messages_and_question_tables(home, capsys):
    pairs = [
        {"prompt": "Write.", "images": [f"pictures/case{n}.png"], "chosen": "Clear.", "rejected": "A mass."}
        for n in range(3)
    ]
    jsonl(home / "pairs.jsonl", pairs)
    samples, refused, *_ = run(home, "{row: true}", capsys)
    assert refused == [] and len(samples) == 3 and all(s.preference for s in samples)
    (home / "pairs.jsonl").unlink()
    (home.parent / "recipe.yaml").unlink()
    chat = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A nodule."}]
    jsonl(home / "chat.jsonl", [{"chat": chat, "image": "pictures/case1.png"}] * 2)
    samples, refused, *_ = run(home, "{row: true}", capsys)
    assert refused == [] and len(samples) == 2 and samples[0].visuals()
    (home / "chat.jsonl").unlink()
    (home.parent / "recipe.yaml").unlink()
    rows = [{"q": n, "scan": f"case{n}", "question": "Is it big?", "answer": "yes", "split": "test"} for n in range(3)]
    (home / "questions.json").write_text(json.dumps(rows))
    samples, refused, recipe, _ = run(home, "{column: scan}", capsys)
    assert refused == [] and [s.question.kind for s in samples] == ["closed"] * 3
    assert 'suffix: ".png"' in recipe and 'split: {column: "split"}' in recipe


def test_dicom_with_reports(tmp_path, capsys):
    home = tmp_path / "pacs"
    for number in range(3):
        for place in range(4):
            dicom(home / f"d{number}" / f"{place}", series=f"1.2.{number}.1", study=f"1.2.{number}", place=place,
                  accession=f"ACC{number}", patient=f"raw-{number}")  # fmt: skip
        (home / "reports").mkdir(exist_ok=True)
        (home / "reports" / f"ACC{number}.txt").write_text("FINDINGS: Clear.")
    samples, refused, recipe, told = run(home, "{dicom: true}", capsys)
    assert refused == [] and len(samples) == 3
    assert '"by": "accession"}  # 3 of 3 .txt files are named by the accession' in recipe
    assert "12 of 12 headers" in " ".join(recipe.split()) and "raw-" not in recipe + told and "ACC" not in recipe + told


def test_dicom_with_a_table_of_reports(tmp_path, capsys):
    home = tmp_path / "pacs"
    for number in range(2):
        dicom(home / f"d{number}" / "x", series=f"1.2.{number}.1", study=f"1.2.{number}", patient=f"raw-{number}")
    (home / "r.csv").write_text("uid,report\n1.2.0,The lungs are clear.\n1.2.1,There is an effusion.\n")
    samples, refused, recipe, _ = run(home, "{dicom: true}", capsys)
    assert refused == [] and len(samples) == 2
    assert '"by": "study_uid", "column": "uid", "text": "report"' in recipe


def test_nothing_is_overwritten_and_nothing_is_made_up(home, tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    assert init.main([str(home), "--out", str(recipe)]) == 2
    assert "No file here has rows" in capsys.readouterr().err and not recipe.exists()
    jsonl(home / "rows.jsonl", [{"image": "case1.png", "x": 1}])
    recipe.write_text("mine")
    with pytest.raises(SystemExit) as stopped:
        init.main([str(home), "--out", str(recipe)])
    assert stopped.value.code == 2 and recipe.read_text() == "mine"
    assert "is there already; choose another --out, or --force to overwrite it" in capsys.readouterr().err
    assert init.main([str(home), "--out", str(recipe), "--force"]) == 0
    assert "no column looks like an answer" in recipe.read_text()
    with pytest.raises(SystemExit):
        init.main([str(home / "none")])
    assert "is not a folder; give the folder that holds the files" in capsys.readouterr().err


def test_what_may_be_shown_of_a_column():
    for name in ("PatientID", "patient_name", "StudyDate", "MRN", "acc. no: accession", "birth", "case", "Reader"):
        assert named_like_an_identifier(name), name
    for name in ("Nachname", "Vorname", "Fallnummer", "Geburtsdatum", "Arzt", "Wohnort", "apellidos", "prénom"):
        assert named_like_an_identifier(name), name
    for name in ("finding", "modality", "answer", "readable", "video", "dated"):
        assert not named_like_an_identifier(name), name
    assert examples("finding", ["effusion", "none", "effusion", "none", "rare"]) == ["effusion", "none"]
    assert examples("by_whom", ["Jane Doe"] * 4) is None
    assert examples("seen", ["Doe^Jane"] * 4 + ["2021-04-03"] * 4 + ["a/b.png"] * 4) is None
    assert examples("code", [f"X{n}" for n in range(9)]) is None
    assert examples("text", ["The heart is of normal size, and the lungs are clear."] * 4) is None
    assert examples("question", ["Is the heart enlarged?", "Does Mr. Doe have a nodule?"]) == ["Is the heart enlarged?"]
    assert examples("n", [1, 1, 2.5, None, True]) == ["1"]
    # A name is not told from a finding: what is no label is not shown, nor is a short name beside a long one.
    assert examples("Kürzel", ["Weber", "Weber", "Li", "Li"]) is None
    assert examples("x", ["weber"] * 3) is None and examples("Antwort", ["ja", "nein"] * 2) == ["ja", "nein"]
    assert examples("view", ["PA", "AP", "PA", "AP"]) == ["PA", "AP"]


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_torn_and_reads_nothing_twice(home):
    rows = "".join(f"case{n % 6}.png,{n},clear\n" for n in range(6_000))
    (home / "rows.csv").write_text("file,who,label\n" + rows)
    recipe = home / "recipe.yaml"
    recipe.write_text(
        "name: mine\nformat: table\nlicence: own\npatient: {column: who}\nsplit: {all: train}\npaths: [rows.csv]\n"
        "images: pictures\nfields: {visuals: [file]}\nask: [{answer: label, prompt: 'What is it?'}]\n"
    )
    out = home / "out"
    command = [sys.executable, "-m", "medvlm.data_recipes.own.build", str(recipe), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    part = out / ".train.jsonl.part"
    while process.poll() is None and not (part.is_file() and part.stat().st_size > 0):
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -9
    assert not (out / "train.jsonl").exists() and not (out / "summary.json").exists()
    assert build.main([str(recipe), "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        ".visuals.sqlite", "quarantine.jsonl", "summary.json", "test_questions.jsonl", "train.jsonl",
    ]  # fmt: skip
    samples, refused = read_back(out)
    assert len(samples) == 6_000 and refused == []


def test_names_under_german_headers_are_not_shown(home, capsys):
    lines = ["Datei;Nachname;Vorname;Wohnort;Arzt;Fallnummer;Ansprechpartner;Frage;Antwort"]
    people = ("Müller;Anna;Köln;Weber;F0;Schulze", "Yilmaz;Cem;Bonn;Weber;F1;Schulze")
    lines += [f"case{n}.png;{people[n // 3]};Liegt ein Erguss vor?;{'ja' if n % 2 else 'nein'}" for n in range(6)]
    (home / "liste.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = home.parent / "recipe.yaml"
    assert init.main([str(home), "--out", str(recipe)]) == 0
    said = capsys.readouterr().out + recipe.read_text()
    for private in ("Müller", "Yilmaz", "Anna", "Cem", "Köln", "Bonn", "Weber", "F0", "Schulze"):
        assert private not in said, private
    assert '"nein", "ja"' in said and 'ask:\n  - answer: "Antwort"' in said and 'prompt: "{Frage}"' in said
