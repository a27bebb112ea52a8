"""MedPix 2.0: splitted_dataset/{descriptions,data}_{train,dev,test}.jsonl and images/<U_id>_synpic<N>.png."""

from __future__ import annotations

from pathlib import Path

from recipe_fixtures.writing import Fixture, json_file, json_lines, picture, replace

TABLES = "splitted_dataset"
CASES = {"train": "MPX1001", "dev": "MPX1002", "test": "MPX1003"}


def described(case: str, number: int, modality: str) -> dict[str, object]:
    return {
        "Type": modality, "U_id": case, "image": f"{case}_synpic{number}",
        "Description": {
            "ACR Codes": "6.3", "Age": "66", "Caption": f"A synthetic nodule of case {case}.", "Figure Part": None,
            "Modality": f"{modality} - noncontrast", "Plane": "Axial", "Sex": "female",
        },
        "Location": "Chest, Pulmonary", "Location Category": "Thorax",
    }  # fmt: skip


def case(name: str) -> dict[str, object]:
    return {
        "U_id": name, "TAC": [f"{name}_synpic1"], "MRI": [f"{name}_synpic2"],
        "Case": {
            "Title": "Synthetic nodule", "History": "A synthetic patient with a cough.", "Exam": "N/A",
            "Findings": "A nodule of 12 mm.", "Differential Diagnosis": "None", "Case Diagnosis": "Granuloma",
            "Diagnosis By": "Imaging", "Discussion": "None", "Treatment & Follow Up": None, "Media": None,
        },
        "Topic": {"Title": "Nodule", "Disease Discussion": "None", "ACR Code": "6.3", "Category": "Inflammatory"},
    }  # fmt: skip


def write(folder: Path) -> None:
    descriptions, cases = [], []
    for place, (part, name) in enumerate(CASES.items()):
        rows = [described(name, 1, "CT"), described(name, 2, "MR")]
        json_lines(folder / TABLES / f"descriptions_{part}.jsonl", rows)
        json_lines(folder / TABLES / f"data_{part}.jsonl", [case(name)])
        descriptions += rows
        cases.append(case(name))
        for number in (1, 2):
            picture(folder / "images" / f"{name}_synpic{number}.png", seed=10 * place + number)
    json_file(folder / "Descriptions.json", descriptions)
    json_file(folder / "Case_topic.json", cases)


def spoil(folder: Path) -> None:
    replace(
        folder / TABLES / "descriptions_train.jsonl",
        "A synthetic nodule of case MPX1001.",
        "Replace this - DESCRIPTION OF THE IMAGE OR FINDINGS.",
    )
    (folder / "images" / "MPX1003_synpic2.png").unlink()
    replace(folder / TABLES / "data_dev.jsonl", "A nodule of 12 mm.", "N/A")
    (folder / TABLES / "data_train.jsonl").unlink()


IMAGES = "Mend: put the folder images of https://github.com/CHILab1/MedPix-2.0 beside splitted_dataset"
GONE = "the image {folder}/images/MPX1003_synpic2.png is missing. " + IMAGES
FIXTURE = Fixture(
    recipe="medpix-2",
    write=write,
    spoil=spoil,
    samples=3 * (2 * 4 + 2),
    refusals=(
        "{folder}/splitted_dataset/descriptions_train.jsonl:1: 'Caption' is not filled in "
        "('Replace this - DESCRIPTION OF THE IMAGE '). Mend: leave it out",
        "{folder}/splitted_dataset/descriptions_test.jsonl:2: " + GONE,
        "{folder}/splitted_dataset/data_train.jsonl: no table data_train.jsonl. "
        "Mend: put it there, from https://github.com/CHILab1/MedPix-2.0",
        "{folder}/splitted_dataset/data_dev.jsonl:1: 'Findings' is not filled in ('N/A'). Mend: leave it out",
        "{folder}/splitted_dataset/data_test.jsonl:1: " + GONE,
    ),
)
