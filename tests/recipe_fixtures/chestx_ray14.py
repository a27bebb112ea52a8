"""ChestX-ray14: Data_Entry_2017_v2020.csv, BBox_List_2017.csv, the two lists and images_001/images/*.png."""

from __future__ import annotations

from pathlib import Path

from recipe_fixtures.writing import Fixture, picture, replace, text

ENTRIES = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
    "00000001_000.png,Cardiomegaly|Effusion,0,1,57,M,PA,2682,2749,0.143,0.143,\n"
    "00000002_000.png,No Finding,0,2,80,F,AP,2500,2048,0.171,0.171,\n"
    "00000003_000.png,Mass,0,3,61,F,PA,2582,2991,0.143,0.143,\n"
)
BOXES = (
    "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
    "00000003_000.png,Mass,10.0,20.0,30.0,40.0,,,\n"
    "00000003_000.png,Mass,50.0,100.0,50.5,50.0,,,\n"
)


def write(folder: Path) -> None:
    for number in (1, 2, 3):
        picture(folder / "images_001" / "images" / f"{number:08}_000.png", size=(200, 100), seed=number)
    text(folder / "Data_Entry_2017_v2020.csv", ENTRIES)
    text(folder / "BBox_List_2017.csv", BOXES)
    text(folder / "train_val_list.txt", "00000001_000.png\n00000002_000.png\n")
    text(folder / "test_list.txt", "00000003_000.png\n")


def spoil(folder: Path) -> None:
    replace(folder / "BBox_List_2017.csv", "10.0,20.0,30.0,40.0", "90,20,30,40")
    replace(folder / "Data_Entry_2017_v2020.csv", "Cardiomegaly|Effusion", "Cardiomegaly|Efusion")
    replace(folder / "train_val_list.txt", "00000002_000.png\n", "")


FIXTURE = Fixture(
    recipe="chestx-ray14",
    write=write,
    spoil=spoil,
    samples=2 + (2 + 2) + 1 + 14,
    refusals=(
        "{folder}/BBox_List_2017.csv:2: the box 90, 20, 30, 40 leaves the picture of 100 x 200 pixels. "
        "Mend: correct the row, or use the pictures as published",
        "{folder}/Data_Entry_2017_v2020.csv:2: unknown finding 'Efusion'. Mend: use the table as published",
        "{folder}/Data_Entry_2017_v2020.csv:3: 00000002_000.png stands in neither list. "
        "Mend: use the lists as published",
    ),
)
