"""The COVID-19 image data collection: metadata.csv and images/, with clinical notes.

Cohen et al., COVID-19 image data collection: prospective predictions are the future, MELBA (2020),
arXiv:2006.11988. Notes describe the case (history, findings, course); they are not signed reports. Every image
has its own licence; an image without one is refused. Findings that the authors left as "todo" are not used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.splits import split_patients
from medvlm.data_recipes.tables import Row, make_samples, read_csv

COLUMNS = (
    "patientid", "offset", "sex", "age", "finding", "view", "modality", "folder", "filename", "license",
    "clinical_notes",
)  # fmt: skip
UNDECIDED = {"todo", "unknown"}
MODALITIES = {"x-ray": ("CR", "chest X-ray"), "ct": ("CT", "CT image")}


def _patient(row: Row) -> str:
    return f"{RECIPE.name}/{row.text('patientid')}"


def _make(row: Row, *, folder: Path, splits: dict[str, Split], listed: dict[str, str]) -> Iterable[Sample]:
    name = row.text("filename")
    if name in listed:
        raise BadSample(
            f"image {name!r} is listed already at {listed[name]}", where=row.where, mend="keep one of the two rows"
        )
    listed[name] = row.where
    licence = row.optional("license")
    if licence is None:
        raise BadSample(
            "no licence is stated for this image", where=row.where, mend="ask the owner, or leave the row out"
        )
    path = folder / row.text("folder") / name
    mend = f"restore the images folder from {RECIPE.url}"
    image = visual_at(path, kind="image", where=row.where, mend=mend)
    modality, spoken = MODALITIES.get(row.text("modality").lower(), ("unknown", "image"))
    view = row.optional("view")
    finding = row.optional("finding")
    note = row.optional("clinical_notes")
    asked = [("note", f"Write the clinical note that belongs to this {spoken}.", note)]
    if view is not None:
        asked.append(("view", f"Which view is this {spoken}?", view))
    if finding is not None and finding.lower() not in UNDECIDED:
        # Newer versions write a path such as Pneumonia/Viral/COVID-19: its end is the diagnosis.
        asked.append(("finding", f"Which diagnosis was made for this {spoken}?", finding.split("/")[-1]))
    if note is None and len(asked) == 1:
        raise BadSample(
            "'clinical_notes', 'view' and 'finding' are all empty: there is no text to learn from",
            where=row.where,
            mend="fill in one of them or drop the row",
        )
    for topic, prompt, answer in asked:
        if answer is None:
            continue
        yield ask(
            sample_id=f"{RECIPE.name}/{name}/{topic}",
            patient_id=_patient(row),
            study_id=f"{_patient(row)}/{row.optional('offset') or 'unknown'}",
            source=RECIPE.name,
            licence=licence,
            split=splits[_patient(row)],
            visuals=[image],
            prompt=prompt,
            answers=[answer],
            kind="report" if topic == "note" else "open",
            topic=topic,
            where=row.where,
            metadata={
                "modality": modality,
                "view": view or "unknown",
                "sex": row.optional("sex") or "unknown",
                "age": row.optional("age") or "unknown",
            },
        )


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    rows = list(read_csv(folder / "metadata.csv", required=COLUMNS))
    patients = {_patient(row) for row in rows if isinstance(row, Row) and row.optional("patientid")}
    make = partial(_make, folder=folder, splits=split_patients(patients), listed={})
    yield from make_samples(rows, make)


def _matches(folder: Path) -> bool:
    table = folder / "metadata.csv"
    if not table.is_file():
        return False
    with table.open("rb") as file:
        header = file.readline().decode("utf-8", errors="replace")
    return {"patientid", "clinical_notes", "filename", "license"} <= set(header.strip().split(","))


RECIPE = Recipe(
    name="covid-chestxray",
    version="ieee8023/covid-chestxray-dataset (2020)",
    licence="per image, in the column license",
    url="https://github.com/ieee8023/covid-chestxray-dataset",
    citation="Cohen et al., MELBA (2020), arXiv:2006.11988",
    owned=("metadata.csv", "images/**/*", "annotations/**/*", "volumes/**/*"),
    matches=_matches,
    build=_build,
    about=(
        "Radiographs and some CT slices of patients with COVID-19 and other pneumonias, collected from publications, "
        "with notes about the case."
    ),
    layout=("FOLDER/\n  metadata.csv\n  images/"),
    questions=(
        "report: the clinical note of the case",
        "open: the view",
        "open: the finding, where the authors name one",
    ),
    faults=(
        "Each picture has a licence of its own; one without a licence is refused.",
        'Findings are "todo" in many rows; these are not asked.',
        "A few pictures are listed twice; the second row is refused.",
        "Notes describe the case and its course: they are no signed reports, and one note may stand for several "
        "pictures.",
    ),
    measured=(
        "A public subset of 97 pictures: 255 samples (205 training, 50 test), 3 rows refused because their picture "
        "is listed already."
    ),
)
