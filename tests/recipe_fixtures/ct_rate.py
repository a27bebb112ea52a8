"""CT-RATE: <split>_fixed/<patient>/<scan>/<volume>.nii.gz and tables of reports, labels and metadata."""

from __future__ import annotations

from pathlib import Path

from recipe_fixtures.writing import Fixture, replace, table, text, volume

LABELS = (
    "Medical material", "Arterial wall calcification", "Cardiomegaly", "Pericardial effusion",
    "Coronary artery wall calcification", "Hiatal hernia", "Lymphadenopathy", "Emphysema", "Atelectasis", "Lung nodule",
    "Lung opacity", "Pulmonary fibrotic sequela", "Pleural effusion", "Mosaic attenuation pattern",
    "Peribronchial thickening", "Consolidation", "Bronchiectasis", "Interlobular septal thickening",
)  # fmt: skip
NAMES = {"train": ("train_1_a_1", "train_1_a_2", "train_2_a_1"), "valid": ("valid_1_a_1",)}
SPOKEN = {"train": "train", "valid": "validation"}


def place(folder: Path, name: str, *, fixed: bool = True) -> Path:
    split, patient, scan, _ = name.split("_")
    top = f"{split}_fixed" if fixed else split
    return folder / top / f"{split}_{patient}" / f"{split}_{patient}_{scan}" / f"{name}.nii.gz"


def write(folder: Path) -> None:
    for offset, (part, names) in enumerate(NAMES.items()):
        for number, name in enumerate(names):
            volume(place(folder, name), seed=10 * offset + number)
        table(
            folder / "radiology_text_reports" / f"{SPOKEN[part]}_reports.csv",
            [
                {
                    "VolumeName": f"{name}.nii.gz",
                    "ClinicalInformation_EN": "Not given." if "2_a" in name else "Cough",
                    "Technique_EN": "Non-contrast images.", "Findings_EN": "A nodule of 4 mm, in the right upper lobe.",
                    "Impressions_EN": "Nonspecific nodule.",
                }
                for name in names
            ],
        )  # fmt: skip
        present = ("Lung nodule", "Emphysema")
        table(
            folder / "multi_abnormality_labels" / f"{part}_predicted_labels.csv",
            [{"VolumeName": f"{name}.nii.gz", **{key: str(int(key in present)) for key in LABELS}} for name in names],
        )
        table(
            folder / "metadata" / f"{SPOKEN[part]}_metadata.csv",
            [
                {
                    "VolumeName": f"{name}.nii.gz", "Manufacturer": "MADE UP", "PatientSex": "F", "PatientAge": "065Y",
                    "ConvolutionKernel": "B30f", "RescaleIntercept": "-1024", "RescaleSlope": "1",
                    "XYSpacing": "[0.75, 0.75]", "ZSpacing": "1.5",
                }
                for name in names
            ],
        )  # fmt: skip
        text(folder / "metadata" / f"no_chest_{part}.txt", "")


def spoil(folder: Path) -> None:
    first, second = place(folder, "train_1_a_1"), place(folder, "train_1_a_2")
    first.unlink()
    old = place(folder, "train_1_a_2", fixed=False)
    old.parent.mkdir(parents=True)
    second.rename(old)
    text(folder / "metadata" / "no_chest_train.txt", "dataset/train/train_2/train_2_a/train_2_a_1.nii.gz\n")
    replace(folder / "multi_abnormality_labels" / "valid_predicted_labels.csv", ",1,", ",2,")


REPORTS = "{folder}/radiology_text_reports/train_reports.csv"
FIXTURE = Fixture(
    recipe="ct-rate",
    write=write,
    spoil=spoil,
    samples=3 * (1 + 4) + 1 + 18,
    refusals=(
        REPORTS + ":2: the volume {folder}/train_fixed/train_1/train_1_a/train_1_a_1.nii.gz is missing. "
        "Mend: download it from https://huggingface.co/datasets/ibrahimhamamci/CT-RATE",
        REPORTS + ":3: train_1_a_2.nii.gz lies in train only, where headers state neither spacing nor Hounsfield "
        "units. Mend: download it from train_fixed",
        REPORTS + ":4: train_2_a_1.nii.gz is no chest CT, says no_chest_train.txt. Mend: leave the volume out",
        "{folder}/multi_abnormality_labels/valid_predicted_labels.csv:2: 'Emphysema' is '2', expected 0 or 1. "
        "Mend: use the table as published",
    ),
)
