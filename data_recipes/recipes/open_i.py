"""The Indiana University chest X-ray collection (Open-i): XML reports, and radiographs when they are there.

Demner-Fushman et al., Preparing a collection of radiology examinations for distribution and retrieval, JAMIA
23(2):304-310 (2016). Without NLMCXR_png/ the task is text alone: write the impression for these findings. With
it, the report is asked of the radiographs. Every report is another patient, as far as the collection tells.
"XXXX" marks what was removed to protect patients; such reports carry ``deidentified`` in their metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.reports.priors import speaks_of_prior
from medvlm.data_recipes.sample import Sample, Split
from medvlm.data_recipes.splits import split_patients
from medvlm.data_recipes.tables import Row, make_samples, read_xml

REPORTS = (Path("NLMCXR_reports") / "ecgen-radiology", Path("ecgen-radiology"))
PICTURES = "NLMCXR_png"


def _reports(folder: Path) -> Path | None:
    return next((folder / place for place in REPORTS if (folder / place).is_dir()), None)


def _read(path: Path) -> Row | BadSample:
    """Sections and image names of one report, as a row."""
    try:
        root = read_xml(path)
    except BadSample as bad:
        return bad
    identity = root.find("uId")
    values: dict[str, object] = {
        "id": None if identity is None else identity.get("id"),
        "images": [image.get("id") for image in root.iter("parentImage")],
    }
    for section in root.iter("AbstractText"):
        values[section.get("Label", "unlabelled").lower()] = "".join(section.itertext())
    return Row(where=str(path), number=1, values=values)


def _pictures(row: Row, folder: Path) -> list[Path]:
    return [folder / PICTURES / f"{name}.png" for name in row.values["images"]]


def _make(row: Row, folder: Path, splits: dict[str, Split]) -> Iterable[Sample]:
    identity = row.text("id")
    patient = f"{RECIPE.name}/{identity}"
    findings, impression = row.optional("findings"), row.optional("impression")
    indication = row.optional("indication")
    illustrated = (folder / PICTURES).is_dir()
    if illustrated:
        mend = f"download NLMCXR_png.tgz from {RECIPE.url}"
        visuals = [visual_at(path, kind="image", where=row.where, mend=mend) for path in _pictures(row, folder)]
        if not visuals:
            raise BadSample("the report names no radiograph", where=row.where, mend="leave the report out")
        parts = (("Findings", findings), ("Impression", impression))
        answer = " ".join(f"{name}: {text}" for name, text in parts if text)
        prompt = "Write the report of this chest X-ray study."
    else:
        visuals = []
        answer = row.text("impression")
        prompt = f"Findings: {row.text('findings')}\nWrite the impression of this chest X-ray report."
    yield ask(
        sample_id=patient,
        patient_id=patient,
        source=RECIPE.name,
        licence=RECIPE.licence,
        split=splits[patient],
        visuals=visuals,
        prompt=f"Indication: {indication}\n{prompt}" if indication else prompt,
        answers=[answer],
        kind="report",
        topic="report" if illustrated else "impression",
        where=row.where,
        metadata={
            "modality": "CR",
            "deidentified": "XXXX" in f"{indication} {findings} {impression}",
            **({"speaks_of_unseen_prior": bool(speaks_of_prior(answer))} if illustrated else {}),
        },
    )


def _build(folder: Path) -> Iterator[Sample | BadSample]:
    reports = _reports(folder)
    if reports is None:
        yield BadSample(
            "no folder ecgen-radiology with reports",
            where=str(folder),
            mend=f"unpack NLMCXR_reports.tgz from {RECIPE.url}",
        )
        return
    rows = [_read(path) for path in sorted(reports.glob("*.xml"))]
    patients = (f"{RECIPE.name}/{row.optional('id')}" for row in rows if isinstance(row, Row))
    splits = split_patients(patients)
    yield from make_samples(rows, lambda row: _make(row, folder, splits))


RECIPE = Recipe(
    name="open-i",
    version="NLMCXR (2016)",
    licence="CC BY-NC-ND 4.0",
    url="https://openi.nlm.nih.gov/faq",
    citation="Demner-Fushman et al., JAMIA 23(2):304-310 (2016)",
    owned=(*(f"{place}/*.xml" for place in REPORTS), f"{PICTURES}/**/*"),
    matches=lambda folder: _reports(folder) is not None,
    build=_build,
    about=(
        "Reports of chest radiographs of Indiana University (IU X-Ray), de-identified, with their frontal and "
        "lateral pictures. Without the pictures the task is text alone: write the impression for these findings."
    ),
    layout=(
        "FOLDER/\n"
        "  NLMCXR_reports/ecgen-radiology/<N>.xml    or ecgen-radiology/ alone\n"
        "  NLMCXR_png/<image>.png                    optional"
    ),
    questions=(
        "report: findings and impression from all pictures of the study and the indication",
        "report: the impression from the findings, when the pictures are not there",
    ),
    faults=(
        '"XXXX" marks what was removed to protect patients, often more than that; such samples say `deidentified`.',
        "Some reports compare with pictures that are not there; `speaks_of_unseen_prior` marks them.",
        "Some reports have no findings or no impression. Without pictures they are refused; with pictures the "
        "section that is there is the answer.",
        "Some reports name no picture; with pictures in the folder they are refused.",
        "The collection names no patients: each report counts as one. There is no official split; ours sends one in "
        "five to test.",
    ),
    measured=(
        "A public subset of 300 reports without pictures: 254 samples (199 training, 55 test), 46 refused because "
        "FINDINGS is empty. The same reports with stand-in pictures: 292 samples, 8 refused because they name no "
        "radiograph."
    ),
)
