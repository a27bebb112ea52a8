"""Change between two studies of one patient: improving, stable or worsening, the earlier picture shown first."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from medvlm.data_recipes.asking import ask, visual_at
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_manifest
from medvlm.data_recipes.phantoms.language import ask_change
from medvlm.data_recipes.phantoms.patient import draw_patient, streams
from medvlm.data_recipes.recipes.mimic_cxr import RECIPE as MIMIC_CXR
from medvlm.data_recipes.sample import Sample, Turn, VisualRef, read_jsonl
from medvlm.data_recipes.tables import Row, make_samples, read_csv
from medvlm.eval.task import Task
from medvlm.eval.tasks import report_example

STATES = ("improving", "stable", "worsening")
PRIOR, CURRENT = "Prior study:", "Current study:"

TABLE = "MS_CXR_T_temporal_image_classification_v1.0.0.csv"
FINDINGS = ("consolidation", "edema", "pleural_effusion", "pneumonia", "pneumothorax")
COLUMNS = (
    "dicom_id", "subject_id", "study_id", "previous_dicom_id", "previous_study_id",
    *(f"{finding}_progression" for finding in FINDINGS),
)  # fmt: skip

IMAGES = (Path("files"), Path("..") / "mimic-cxr" / "files", Path("..") / "mimic-cxr-jpg" / "files")
"""Where the pictures of MIMIC-CXR-JPG may lie, from the folder of the table."""

MANIFEST = "test_questions.jsonl"
STATE_OF = {"smaller": "improving", "unchanged": "stable", "larger": "worsening", "new": "worsening"}
"""What a change of size of a phantom's finding means for the patient."""


def in_order(sample: Sample) -> Sample:
    """``sample`` with its two pictures named as prior and current."""
    prior, current = sample.visuals()
    content = (PRIOR, prior, CURRENT, current, sample.turns[-1].content[-1])
    return replace(sample, turns=(Turn(role="user", content=content),))


def prompt(finding: str) -> str:
    return f"Compared with the prior study, is the {finding} improving, stable or worsening?"


# --- MS-CXR-T ------------------------------------------------------------------------------------------------------


def read_ms_cxr_t(folder: Path) -> Iterator[Sample | BadSample]:
    """One question for each finding with a stated progression; empty cells are findings that were not annotated."""
    yield from make_samples(read_csv(folder / TABLE, required=COLUMNS), lambda row: _questions(row, folder))


def _questions(row: Row, folder: Path) -> Iterator[Sample]:
    asked = [(finding, row.optional(f"{finding}_progression")) for finding in FINDINGS]
    pair = [_picture(row.text(key), folder, row.where) for key in ("previous_dicom_id", "dicom_id")]
    for finding, state in asked:
        if state is None:
            continue
        if state.lower() not in STATES:
            raise BadSample(
                f"{finding}_progression is {state!r}", where=row.where, mend=f"use one of {', '.join(STATES)}"
            )
        spoken = "pulmonary edema" if finding == "edema" else finding.replace("_", " ")
        quality = row.optional(f"{finding}_label_quality")
        yield in_order(
            ask(
                sample_id=f"{Path(row.text('dicom_id')).name}/{Path(row.text('previous_dicom_id')).name}/{finding}",
                patient_id=f"p{row.text('subject_id')}",
                study_id=f"s{row.text('study_id')}",
                source="ms-cxr-t",
                licence=MIMIC_CXR.licence,
                split="test",
                visuals=pair,
                prompt=prompt(spoken),
                answers=["ABC"[STATES.index(state.lower())]],
                kind="choice",
                choices=STATES,
                topic=spoken,
                where=row.where,
                metadata={
                    "modality": "DX",
                    "view": "frontal",
                    "prior_study_id": f"s{row.text('previous_study_id')}",
                    **({"label_quality": quality} if quality else {}),
                },
            )
        )


def _picture(dicom: str, folder: Path, where: str) -> VisualRef:
    if ".." in Path(dicom).parts:
        raise BadSample("the path leaves the folder of pictures", where=where, mend="use the table as published")
    names = [folder / root / f"{dicom}{suffix}" for root in IMAGES for suffix in (".jpg", ".dcm")]
    path = next((name for name in names if name.is_file()), names[0])
    mend = f"download the picture from {MIMIC_CXR.url} into files/ beside the table, or into ../mimic-cxr/files/"
    options = {} if path.suffix == ".dcm" else {"modality": "DX"}
    return visual_at(path, kind="image", where=where, mend=mend, **options)


def example_ms_cxr_t(folder: Path) -> None:
    """Thirty made-up pairs of eighteen patients, one or two findings each."""
    header = [*COLUMNS, *(f"{finding}_label_quality" for finding in FINDINGS)]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TABLE).open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, header)
        table.writeheader()
        for number in range(report_example.COUNT):
            patient = 19000000 + number % 18
            row = dict.fromkeys(header, "") | {"subject_id": str(patient)}
            for place, key in enumerate(("previous_", "")):
                study = 59000000 + 2 * number + place
                name = f"p19/p{patient}/s{study}/{report_example.hexadecimal(2 * number + place)}"
                row |= {f"{key}dicom_id": name, f"{key}study_id": str(study)}
                report_example.draw(folder / "files" / f"{name}.jpg", 2 * number + place)
            for finding in (FINDINGS[number % 5], *([FINDINGS[(number + 2) % 5]] if number % 4 == 0 else [])):
                row[f"{finding}_progression"] = STATES[(number + len(finding)) % 3]
                row[f"{finding}_label_quality"] = ("one_expert", "multiple_experts")[number % 2]
            table.writerow(row)


# --- phantoms and own manifests ------------------------------------------------------------------------------------


def read_manifest(folder: Path) -> Iterator[Sample | BadSample]:
    """The questions of ``test_questions.jsonl`` about a change since a prior picture, in the words of this task.

    Those are the rows of topic "change" with two pictures, the prior first, and one of the answers larger, smaller,
    unchanged and new, as the phantoms write them; an own manifest may hold such rows too.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise BadSample("the manifest is missing", where=str(path), mend="write it: medvlm data phantoms --out FOLDER")
    for number, sample in enumerate(read_jsonl(path), start=1):
        if isinstance(sample, BadSample):
            yield sample
        elif sample.question is not None and sample.question.topic == "change":
            try:
                yield _asked_anew(sample, folder, f"{path}, question {number}")
            except BadSample as bad:
                yield bad


def _asked_anew(sample: Sample, folder: Path, where: str) -> Sample:
    question, visuals = sample.question, sample.visuals()
    assert question is not None, "read_manifest asks for questions about a change"
    state = STATE_OF.get(question.answers[0])
    if state is None or len(visuals) != 2 or not question.findings:
        raise BadSample(
            f"a question about a change with {len(visuals)} pictures, {len(question.findings)} findings and the answer "
            f"{question.answers[0]!r}",
            where=where,
            mend=f"show prior and current picture, name the finding, and answer {', '.join(STATE_OF)}",
            sample_id=sample.sample_id,
        )
    finding = str(question.findings[0].get("kind", "")).replace("_", " ")
    anew = ask(
        sample_id=sample.sample_id,
        patient_id=sample.patient_id,
        study_id=sample.study_id,
        source=sample.source,
        licence=sample.licence,
        split="test",
        visuals=[replace(ref, path=str((folder / ref.path).resolve())) for ref in visuals],
        prompt=prompt(finding),
        answers=["ABC"[STATES.index(state)]],
        kind="choice",
        choices=STATES,
        topic=finding,
        findings=question.findings,
        where=where,
        metadata={"modality": sample.metadata.get("modality", "DX"), "change": question.answers[0]},
    )
    return in_order(anew)


def example_manifest(folder: Path) -> None:
    """The questions of thirty virtual patients, with drawn pictures in the place of their radiographs."""
    folder.mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    index = 0
    while len(samples) < report_example.COUNT:
        patient = draw_patient(index, split="test", rng=streams(0, index)["patient"])
        index += 1
        if not patient.has_prior:
            continue
        asked = ask_change(patient.findings[0])
        refs = []
        for place, name in enumerate(("prior", "radiograph")):
            path = f"images/{patient.patient_id}/{name}.png"
            report_example.draw(folder / path, 2 * index + place)
            refs.append(VisualRef(kind="image", path=path))
        samples.append(
            Sample(
                sample_id=f"{patient.patient_id}-2d-q-change",
                patient_id=patient.patient_id,
                study_id=f"{patient.patient_id}-2d",
                source="phantoms",
                licence="Apache-2.0",
                split="test",
                turns=(Turn(role="user", content=(*refs, asked.prompt)),),
                question=asked.question,
                metadata={"modality": "DX", "dimension": "2d"},
            )
        )
    write_manifest(folder / MANIFEST, samples)


MS_CXR_T = Task(
    name="ms-cxr-t",
    version=1,
    title="MS-CXR-T: change of five findings between two chest X-rays",
    about=(
        "Is a finding improving, stable or worsening? A prior and a current frontal picture of one patient, the prior "
        "first; labels reviewed by a radiologist."
    ),
    folder="ms-cxr-t",
    read=read_ms_cxr_t,
    n=1326,
    n_source="labels of the image classification task, physionet.org/content/ms-cxr-t/1.0.0",
    example=example_ms_cxr_t,
    licence=MIMIC_CXR.licence,
    url="https://physionet.org/content/ms-cxr-t/1.0.0/",
    citation="Bannur et al., CVPR 2023, arXiv:2301.04558; doi:10.13026/pg10-j984",
    access="credentialed",
    cluster="patient",
    faults=(
        "The table was not seen: its columns are those that public readers of it use, n is the number its page states.",
        "Its pictures are those of MIMIC-CXR-JPG, training split of it among them: say so of models trained on MIMIC.",
        "Papers report macro accuracy over the three states by finding, after training a classifier on other pairs: no "
        "figure of theirs is that of a question asked without training.",
        "column label_quality tells labels of one expert from those of several and from disagreement; it is kept "
        "in the metadata and nothing is left out.",
    ),
)
PHANTOMS = Task(
    name="phantoms-change",
    version=1,
    title="Virtual patients: change of a finding between two drawn chest X-rays",
    about=(
        "Is a finding improving, stable or worsening? Prior and current radiograph of the test patients that `medvlm "
        "data phantoms` draws with its defaults (2,000 patients, seed 0)."
    ),
    folder="phantoms",
    read=read_manifest,
    n=79,
    n_source="computed: test patients with a prior among 2,000 of seed 0, phantoms version 4",
    example=example_manifest,
    licence="Apache-2.0",
    url="medvlm data phantoms --out benchmarks/phantoms",
    citation="this package",
    ids_sha256="697219b0afa3b4db15cb4c651bb45ea8c761209d2aecf8f58c3c7c5fe77eb716",
    cluster="patient",
    faults=(
        "Drawn pictures: a model that reads them well need not read radiographs well; one that cannot tell larger from "
        "smaller here will not tell it there.",
        "larger and new are worsening, smaller is improving, unchanged is stable: worsening is the most "
        "frequent state.",
    ),
)
