"""SLAKE 1.0: questions in English and Chinese about CT, MR and X-ray slices.

Liu et al., SLAKE: a semantically-labeled knowledge-enhanced dataset for medical visual question answering, ISBI
(2021). Images lie in imgs/<img_name>. Closed questions whose answer is not yes or no (left, CT, Chinese words
that vary) are asked as open questions and keep ``official_closed``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.asking import YES_NO, ask, visual_at, yes_no
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, first_keys, make_samples, read_json_list

FILES: dict[str, Split] = {"train.json": "train", "validate.json": "validation", "test.json": "test"}
MODALITIES = {"ct": "CT", "mri": "MR", "x-ray": "CR"}


def _make(row: Row, *, folder: Path, split: Split) -> Iterable[Sample]:
    name = row.text("img_name")
    answer = row.text("answer")
    official_closed = row.text("answer_type").upper() == "CLOSED"
    decided = yes_no(answer) if official_closed else None
    mend = f"unpack imgs.zip from {RECIPE.url} into {folder}"
    yield ask(
        sample_id=f"{RECIPE.name}/{row.text('qid')}",
        patient_id=f"{RECIPE.name}/{Path(name).parts[0]}",
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=split,
        visuals=[visual_at(folder / "imgs" / name, kind="image", where=row.where, mend=mend)],
        prompt=row.text("question"),
        answers=[decided or answer],
        kind="closed" if decided else "open",
        choices=YES_NO if decided else (),
        topic=(row.optional("content_type") or "other").lower(),
        where=row.where,
        metadata={
            "official_split": True,
            "official_closed": official_closed,
            "language": row.text("q_lang"),
            "modality": MODALITIES.get((row.optional("modality") or "").lower(), "unknown"),
            "organ": row.optional("location") or "unknown",
            "needs_knowledge": row.optional("base_type") == "kvqa",
        },
    )


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for name, split in FILES.items():
        if (folder / name).is_file():
            yield from make_samples(read_json_list(folder / name), partial(_make, folder=folder, split=split))


def _matches(folder: Path) -> bool:
    tables = [folder / name for name in FILES if (folder / name).is_file()]
    return bool(tables) and {"img_name", "q_lang", "answer_type"} <= first_keys(tables[0])


RECIPE = Recipe(
    name="slake",
    version="Slake1.0 (2021)",
    licence="CC BY 4.0",
    url="https://www.med-vqa.com/slake",
    citation="Liu et al., ISBI (2021)",
    owned=(*FILES, "imgs/**/*", "KG/**/*"),
    matches=_matches,
    build=_build,
    about=(
        "Questions in English and Chinese about CT, MR and X-ray slices, some of which need knowledge beyond the "
        "picture, in the authors' three splits."
    ),
    layout=("Slake1.0/\n  train.json, validate.json, test.json\n  imgs/xmlab<N>/source.jpg"),
    questions=(
        "closed: yes/no questions",
        "open: everything else, also official closed questions with another answer (left, CT, Chinese words), which "
        "keep `official_closed`",
    ),
    faults=(
        "`answer_type` CLOSED does not mean yes or no.",
        "Masks and knowledge graph of the archive are not used.",
        "The split is by picture; pictures of one patient cannot be told.",
    ),
    measured=(
        "A public subset of 389 rows about 30 pictures, without the pictures: all 389 refused by the name of the "
        "missing picture. The same rows with stand-in pictures: 389 samples (210 training, 92 validation, 87 test), "
        "none refused, no picture in two splits."
    ),
)
