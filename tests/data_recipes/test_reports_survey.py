"""The survey of a folder of reports, and the example of docs/reports.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medvlm.data_recipes.reports.survey import main

OPEN_I = (
    '<eCitation><uId id="CXR1"/><AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="FINDINGS">'
    'Scar is unchanged, see XXXX.</AbstractText><AbstractText Label="IMPRESSION">No disease.</AbstractText></eCitation>'
)


def test_a_survey_counts_and_shows_no_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.xml").write_text(OPEN_I)
    (tmp_path / "b.txt").write_text("HISTORY: Cough by ___.\n\nSecretword lungs.\n")
    assert main([str(tmp_path), "--json"]) == 0
    shown = capsys.readouterr().out
    found = json.loads(shown)
    assert "Secretword" not in shown
    assert (found["reports"], found["section findings"], found["section history"]) == (2, 1, 1)
    assert (found["marks of de-identification"], found["reports with marks"], found["answers with marks"]) == (2, 2, 1)
    assert found["last paragraph without a header"] == 1 and found["answers that speak of a prior"] == 1
    assert found["kept with marks refuse, unseen prior refuse"] == 1
    assert found["kept with marks keep, unseen prior keep"] == 2


def test_a_survey_says_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2 and "no .txt or .xml report" in capsys.readouterr().err
    (tmp_path / "a.xml").write_text("<eCitation>")
    (tmp_path / "b.txt").write_bytes(b"IMPRESSION: caf\xe9")
    (tmp_path / "c.txt").write_text(" \n")
    (tmp_path / "d.txt").write_text("IMPRESSION: Clear.")
    assert main([str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "3  unreadable files" in out and "not UTF-8" in err and "the report is empty" in err and "XML" in err


def test_the_example_of_the_page_runs() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    exec(compile(example, "docs/reports.md", "exec"), {"__name__": "example"})
