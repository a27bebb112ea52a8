"""SLAKE 1.0: questions in English and Chinese about CT, MR and X-ray slices.

Liu et al., SLAKE: a semantically-labeled knowledge-enhanced dataset for medical visual question answering, ISBI
(2021). Images lie in imgs/<img_name>. Closed questions beyond yes and no (left, CT, Chinese words that vary) are closed
questions too where the wording names or implies the alternatives, open ones otherwise; all keep ``official_closed``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.alternatives import choices_of
from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.tables import Row, first_keys, make_samples, read_json_list

FILES: dict[str, Split] = {
    "train.json": "train",
    "validate.json": "validation",
    "validation.json": "validation",  # as the copy on the hub calls it
    "test.json": "test",
}
HUB = "BoKelvin/SLAKE"
MODALITIES = {"ct": "CT", "mri": "MR", "x-ray": "CR"}


def _make(row: Row, *, folder: Path, split: Split) -> Iterable[Sample]:
    name = row.text("img_name")
    question, answer = row.text("question"), row.text("answer")
    official_closed = row.text("answer_type").upper() == "CLOSED"
    choices, key = (choices_of(question, answer) if official_closed else None) or ((), answer)
    chinese = row.text("q_lang") == "zh"
    mend = f"unpack imgs.zip from {RECIPE.url} into {folder}"
    yield ask(
        sample_id=f"{RECIPE.name}/{row.text('qid')}",
        patient_id=f"{RECIPE.name}/{Path(name).parts[0]}",
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=split,
        visuals=[visual_at(folder / "imgs" / name, kind="image", where=row.where, mend=mend)],
        prompt=question,
        answers=[key],
        kind="closed" if choices else "open",
        choices=choices,
        ending=f"请回答{'或'.join(choices)}。" if chinese else "",
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


def table_samples(folder: Path, name: str, *, language: str | None = None) -> Iterator[Sample | BadSample]:
    """Samples of one of FILES; of its rows in one language, when one is given."""
    rows = read_json_list(folder / name)
    if language is not None:
        # A row whose language is no text is read, so that it is refused by name.
        rows = (row for row in rows if isinstance(row, BadSample) or row.values.get("q_lang") in (language, None))
    yield from make_samples(rows, partial(_make, folder=folder, split=FILES[name]))


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    for name in FILES:
        if (folder / name).is_file():
            yield from table_samples(folder, name)


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
    layout=(
        "Slake1.0/\n  train.json, validate.json, test.json\n  imgs/xmlab<N>/source.jpg\n"
        f"or a snapshot of hub dataset {HUB} with imgs.zip unpacked in it"
    ),
    questions=(
        "closed: yes/no questions, also in Chinese, and official closed questions that end with their alternatives "
        "(heart or lung?)",
        "open: everything else, also official closed questions whose alternatives cannot be told, which keep "
        "`official_closed`",
    ),
    faults=(
        "`answer_type` CLOSED does not mean yes or no: 61 of 416 English test rows are something else.",
        "In a few closed rows the key is none of the organs that the question offers; they are asked openly.",
        "The copy on the hub calls validate.json validation.json, and keeps the pictures in imgs.zip.",
        "Masks and knowledge graph of the archive are not used.",
        "The split is by picture; pictures of one patient cannot be told.",
    ),
    measured=(
        "A public subset of 389 rows about 30 pictures, without the pictures: all 389 refused by the name of the "
        "missing picture. The same rows with stand-in pictures: 389 samples (210 training, 92 validation, 87 test), "
        "none refused, no picture in two splits."
    ),
)
