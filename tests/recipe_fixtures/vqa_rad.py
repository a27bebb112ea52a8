"""VQA-RAD: one JSON list and "VQA_RAD Image Folder"."""

from __future__ import annotations

from pathlib import Path

from recipe_fixtures.writing import Fixture, json_file, picture, replace

TABLE = "VQA_RAD Dataset Public.json"


def row(qid: int, **changes: object) -> dict[str, object]:
    made: dict[str, object] = {
        "qid": qid, "phrase_type": "freeform", "image_case_url": "https://medpix.nlm.nih.gov/case?id=1",
        "image_name": "synpic1.jpg", "image_organ": "CHEST", "question": "Is there an effusion?",
        "question_type": "PRES", "answer": "Yes", "answer_type": "CLOSED",
    }  # fmt: skip
    return made | changes


def write(folder: Path) -> None:
    picture(folder / "VQA_RAD Image Folder" / "synpic1.jpg")
    rows = [
        row(1),
        row(2, phrase_type="test_freeform", answer_type="CLOSED ", answer="no", question="Any nodule?"),
        row(3, answer_type="OPEN", answer=2, question="How many kidneys?", question_type="COUNT"),
        row(4, phrase_type="test_para", answer="left", question="Which side?", question_type="POS, PRES"),
        row(7, answer_type="OPEN", answer="None", question="What is abnormal?"),
    ]
    json_file(folder / TABLE, rows)


def spoil(folder: Path) -> None:
    replace(folder / TABLE, '"answer": "Yes"', '"answer": "  "')
    replace(folder / TABLE, '"qid": 2, "phrase_type": "test_freeform"', '"qid": 2, "phrase_type": null')
    replace(folder / TABLE, "synpic1.jpg", "synpic9.jpg")  # of the row whose answer is empty: one complaint per row
    replace(folder / TABLE, '"answer": "None"', '"answer": ["None"]')


FIXTURE = Fixture(
    recipe="vqa-rad",
    write=write,
    spoil=spoil,
    samples=5,
    refusals=(
        "{folder}/VQA_RAD Dataset Public.json:1: 'answer' is empty ('  '). Mend: fill in 'answer' or drop the row",
        "{folder}/VQA_RAD Dataset Public.json:2: 'phrase_type' is empty (None). "
        "Mend: fill in 'phrase_type' or drop the row",
        "{folder}/VQA_RAD Dataset Public.json:5: 'answer' must be text or a number, got list. "
        "Mend: write 'answer' as text",
    ),
)
