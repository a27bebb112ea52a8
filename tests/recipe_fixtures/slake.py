"""SLAKE 1.0: train.json, validate.json, test.json and imgs/<img_name>."""

from __future__ import annotations

from pathlib import Path

from recipe_fixtures.writing import Fixture, json_file, picture, replace


def row(qid: int, **changes: object) -> dict[str, object]:
    made: dict[str, object] = {
        "img_id": 1, "img_name": "xmlab1/source.jpg", "question": "Is the heart seen?", "answer": "Yes",
        "q_lang": "en", "location": "Lung", "modality": "MRI", "answer_type": "CLOSED", "base_type": "vqa",
        "content_type": "Organ", "triple": ["vhead", "_", "_"], "qid": qid,
    }  # fmt: skip
    return made | changes


def write(folder: Path) -> None:
    for number in (1, 2, 3):
        picture(folder / "imgs" / f"xmlab{number}" / "source.jpg", seed=number)
    json_file(folder / "train.json", [row(1), row(2, answer="Left", question="On which side is the liver?")])
    json_file(
        folder / "validate.json",
        [row(3, img_name="xmlab2/source.jpg", q_lang="zh", question="有心脏吗?", answer="有")],
    )
    json_file(folder / "test.json", [row(4, img_name="xmlab3/source.jpg", answer="No", base_type="kvqa")])


def spoil(folder: Path) -> None:
    (folder / "imgs" / "xmlab2" / "source.jpg").unlink()
    replace(folder / "test.json", '"answer": "No"', '"answer": ""')


FIXTURE = Fixture(
    recipe="slake",
    write=write,
    spoil=spoil,
    samples=4,
    refusals=(
        "{folder}/validate.json:1: the image {folder}/imgs/xmlab2/source.jpg is missing. "
        "Mend: unpack imgs.zip from https://www.med-vqa.com/slake into {folder}",
        "{folder}/test.json:1: 'answer' is empty (''). Mend: fill in 'answer' or drop the row",
    ),
)
