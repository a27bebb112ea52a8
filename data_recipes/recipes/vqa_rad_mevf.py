"""VQA-RAD in the trainset.json / testset.json form that came with MEVF and that most code on the net uses.

Nguyen et al., Overcoming data limitation in medical visual question answering, MICCAI 2019. Image folders
travel separately, so the usual names are looked for in this folder, beside it, and one level down from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.recipes.vqa_rad import IMAGES, question_sample
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, first_keys, make_samples, read_json_list

FILES: dict[str, Split] = {"trainset.json": "train", "testset.json": "test"}
IMAGE_FOLDERS = ("images", "Images", "imgs", "VQA_RAD_Image_Folder", IMAGES)


def _image_folders(folder: Path) -> list[Path]:
    beside = (path for path in sorted(folder.parent.iterdir()) if path.is_dir())
    places = [folder, folder.parent, *beside]
    return [place / name for place in places for name in IMAGE_FOLDERS if (place / name).is_dir()]


def _image(name: str, folders: list[Path], fallback: Path) -> Path:
    found = (folder / name for folder in folders if (folder / name).is_file())
    return next(found, fallback / name)


def _make(row: Row, *, split: Split, folders: list[Path], fallback: Path) -> Iterable[Sample]:
    yield question_sample(
        row,
        source=RECIPE.name,
        licence=RECIPE.licence,
        sample_id=f"{RECIPE.name}/{split}/{row.text('qid')}",
        split=split,
        image=_image(row.text("image_name"), folders, fallback),
        organ=row.optional("image_organ"),
    )


def table_samples(folder: Path, name: str) -> Iterator[Sample | BadSample]:
    """Samples of one of FILES."""
    make = partial(_make, split=FILES[name], folders=_image_folders(folder), fallback=folder / IMAGE_FOLDERS[0])
    yield from make_samples(read_json_list(folder / name), make)


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for name in FILES:
        yield from table_samples(folder, name)


def _matches(folder: Path) -> bool:
    if not all((folder / name).is_file() for name in FILES):
        return False
    return {"qid", "image_name", "phrase_type", "answer_type"} <= first_keys(folder / "testset.json")


RECIPE = Recipe(
    name="vqa-rad-mevf",
    version="MEVF (2019)",
    licence="CC0-1.0",
    url="https://osf.io/89kps",
    citation="Lau et al., Scientific Data 5:180251 (2018); Nguyen et al., MICCAI (2019)",
    owned=(*FILES, *(f"{name}/**/*" for name in IMAGE_FOLDERS)),
    matches=_matches,
    build=_build,
    about=(
        "VQA-RAD in the form of two JSON lists that most published code uses. The questions are those of the "
        "original archive; the picture folder travels separately and is looked for beside the tables."
    ),
    layout=('FOLDER/\n  trainset.json\n  testset.json\n  images/, or "VQA_RAD Image Folder" in or beside the folder'),
    questions=(
        "closed: yes/no questions",
        "open: everything else",
    ),
    faults=(
        "The rows are those of VQA-RAD under other sample ids: use one of the two recipes, not both.",
        "Training and test share pictures, as in VQA-RAD.",
    ),
    measured="A public subset of 1,717 rows with 157 pictures: 1,717 samples (1,481 training, 236 test), none refused.",
)
