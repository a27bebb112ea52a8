"""What others say is in a report, as the labels of CheXpert: MeSH tags of Open-i, and tables made from them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.tables import read_xml
from medvlm.eval.scorers.finding_terms import FINDINGS


@dataclass(frozen=True, kw_only=True)
class Tagged:
    """One report.

    Attributes:
        number: of Open-i's uId: CXR1012 is 1012.
        text: findings and impression.
        tags: MeSH headings as the indexers wrote them, with qualifiers.
        automatic: what the collection's own program found in the text (no reference; shown as a comparison).
    """

    number: int
    text: str
    tags: tuple[str, ...]
    automatic: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What the tags say: labels that are there, and labels of which they do not tell."""

    present: frozenset[str]
    open: frozenset[str]


_LUNG = frozenset(
    {
        "lung", "retrocardiac", "costophrenic angle", "bronchi", "pulmonary alveoli", "apex", "base", "lingula",
        "upper lobe", "lower lobe", "middle lobe", "interstitial",
    }
)  # fmt: skip


def from_tags(tags: Iterable[str]) -> Reference | None:
    """The labels that MeSH tags stand for; None where the indexers left the report out ("No Indexing").

    A tag is "Heading/qualifier/...". The mapping, and what it leaves open, is told in docs/labeller.md.
    """
    present: set[str] = set()
    left_open: set[str] = set()
    for tag in tags:
        heading, *qualifiers = (part.strip().lower() for part in tag.split("/"))
        if heading == "no indexing":
            return None
        in_lung, named = bool(_LUNG & set(qualifiers)), set(qualifiers)
        match heading:
            case "cardiomegaly":
                present.add("Cardiomegaly")
            case "cardiac shadow" | "heart":
                (present if "enlarged" in named else left_open).add("Cardiomegaly")
            case "mediastinum":
                wide = named & {"enlarged", "prominent"}
                (present if wide else left_open).add("Enlarged Cardiomediastinum")
            case "airspace disease" | "infiltrate" | "pulmonary fibrosis" | "lung diseases, interstitial":
                present.add("Lung Opacity")
            case "opacity" | "density":
                (present if in_lung else left_open).add("Lung Opacity")
            case "cicatrix":
                if "pleura" in named:
                    present.add("Pleural Other")
                    left_open.add("Lung Opacity")
                else:
                    (present if in_lung else left_open).add("Lung Opacity")
            case "markings":
                (left_open if "bronchovascular" in named else present).add("Lung Opacity")
            case "thickening":
                if "pleura" in named:
                    present.add("Pleural Other")
                else:
                    left_open.add("Lung Opacity")
            case "nodule" | "mass" | "neoplasms" | "lung neoplasms":
                present.add("Lung Lesion")
            case "granuloma" | "calcified granuloma" | "granulomatous disease" | "calcinosis" | "cysts" | "cavitation":
                left_open.add("Lung Lesion")
            case "pulmonary edema" | "pulmonary congestion" | "heart failure":
                present.add("Edema")
            case "consolidation":
                present.add("Consolidation")
            case "pneumonia" | "pneumonia, aspiration" | "bronchopneumonia":
                present.add("Pneumonia")
            case "pulmonary atelectasis":
                present.add("Atelectasis")
            case "pneumothorax" | "hydropneumothorax":
                present.add("Pneumothorax")
            case "pleural effusion":
                present.add("Pleural Effusion")
            case "costophrenic angle":
                left_open |= {"Pleural Effusion", "Pleural Other"}
            case "fractures, bone":
                present.add("Fracture")
            case "deformity" | "expansile bone lesions":
                left_open.add("Fracture")
            case "catheters, indwelling" | "implanted medical device" | "medical device" | "tube, inserted" | "stents":
                present.add("Support Devices")
            case "surgical instruments" | "spinal fusion" | "foreign bodies" | "sutures" | "breast implants":
                left_open.add("Support Devices")
    return Reference(present=frozenset(present), open=frozenset(left_open - present))


NEGBIO = {
    "Atelectasis": "Atelectasis", "Cardiomegaly": "Cardiomegaly", "Effusion": "Pleural Effusion",
    "Pneumonia": "Pneumonia", "Pneumothorax": "Pneumothorax", "Consolidation": "Consolidation", "Edema": "Edema",
}  # fmt: skip
"""Columns of NegBio's openi_gld_std14.csv (Peng et al. 2018; Wang et al. 2017) that are labels of CheXpert."""


def read_negbio(path: Path) -> dict[int, Reference]:
    """number -> labels of NegBio's table of Open-i; labels that it has no column for are left open.

    Raises:
        BadSample: a column is missing, or a value is neither 0 nor 1.
    """
    found: dict[int, Reference] = {}
    others = frozenset(FINDINGS) - set(NEGBIO.values())
    with path.open(encoding="utf-8", newline="") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            values = [row.get(column) for column in NEGBIO]
            if any(value not in ("0", "1") for value in values):
                raise BadSample(
                    f"columns {', '.join(NEGBIO)} must be 0 or 1, got {values}",
                    where=f"{path}:{line}",
                    mend="give examples/openi_gld_std14.csv of ncbi-nlp/NegBio as it is",
                )
            present = frozenset(name for (column, name) in NEGBIO.items() if row[column] == "1")
            found[int(row["filename"].removeprefix("CXR"))] = Reference(present=present, open=others)
    return found


RAD_RESTRUCT: Mapping[str, str] = {
    **dict.fromkeys(("airspace disease", "infiltrate", "opacity", "density", "cicatrix"), "Lung Opacity"),
    **dict.fromkeys(("lung diseases, interstitial", "pulmonary fibrosis"), "Lung Opacity"),
    **dict.fromkeys(("mass", "nodule"), "Lung Lesion"),
    **dict.fromkeys(("pulmonary edema", "pulmonary congestion"), "Edema"),
    **dict.fromkeys(("catheters, indwelling", "implanted medical device", "medical device"), "Support Devices"),
    **dict.fromkeys(("stents", "tube, inserted"), "Support Devices"),
    "cardiomegaly": "Cardiomegaly",
    "consolidation": "Consolidation",
    "pneumonia": "Pneumonia",
    "pulmonary atelectasis": "Atelectasis",
    "pneumothorax": "Pneumothorax",
    "pleural effusion": "Pleural Effusion",
    "fractures, bone": "Fracture",
}
"""Names of Rad-ReStruct's template (Pellegrini et al. 2023) that stand for a label."""

RAD_RESTRUCT_OPEN: Mapping[str, tuple[str, ...]] = {
    "markings": ("Lung Opacity",), "thickening": ("Lung Opacity", "Pleural Other"), "granuloma": ("Lung Lesion",),
    "calcified granuloma": ("Lung Lesion",), "calcinosis": ("Lung Lesion",), "cysts": ("Lung Lesion",),
    "cavitation": ("Lung Lesion",), "costophrenic angle": ("Pleural Effusion", "Pleural Other"),
    "deformity": ("Fracture",), "surgical instruments": ("Support Devices",), "foreign bodies": ("Support Devices",),
    "sutures": ("Support Devices",), "breast implants": ("Support Devices",), "spinal fusion": ("Support Devices",),
    "cardiac shadow": ("Cardiomegaly",), "heart": ("Cardiomegaly",), "mediastinum": ("Enlarged Cardiomediastinum",),
}  # fmt: skip


def read_rad_restruct(folder: Path, numbers: Iterable[int]) -> dict[int, Reference]:
    """number -> labels of the filled templates in ``folder`` (data/radrestruct/new_reports), where there is one."""
    found: dict[int, Reference] = {}
    for number in numbers:
        path = folder / f"{number}.json"
        if not path.exists():
            continue
        names: set[tuple[str, bool]] = set()
        _filled(json.loads(path.read_text(encoding="utf-8")), "", names)
        present = {RAD_RESTRUCT[name] for name, _ in names if name in RAD_RESTRUCT}
        left_open = {label for name, _ in names for label in RAD_RESTRUCT_OPEN.get(name, ())}
        if any(name in ("cicatrix", "thickening") and pleural for name, pleural in names):
            present.add("Pleural Other")
        found[number] = Reference(present=frozenset(present), open=frozenset(left_open - present))
    return found


def _filled(node: object, area: str, names: set[tuple[str, bool]]) -> None:
    """Names of the template that have an instance, and whether they stand under the pleura."""
    if isinstance(node, list):
        for one in node:
            _filled(one, area, names)
    elif isinstance(node, dict):
        area = f"{area}/{node['area'].lower()}" if isinstance(node.get("area"), str) else area
        for name, child in node.items():
            if isinstance(child, dict) and child.get("instances"):
                # Under the mediastinum the template has no level of names: what is filled in is about it.
                known = area.rpartition("/")[2] if name == "infos" else name.strip().lower()
                names.add((known, "pleura" in area))
            elif isinstance(child, dict | list):
                _filled(child, f"{area}/{name.lower()}", names)


def read_open_i(folder: Path) -> list[Tagged]:
    """The eCitation XML files below ``folder``, by number.

    Raises:
        BadSample: there is none, or one is not such a file.
    """
    found: list[Tagged] = []
    for path in sorted(folder.rglob("*.xml")):
        root = read_xml(path)
        identity = root.find("uId")
        if identity is None or not str(identity.get("id")).removeprefix("CXR").isdigit():
            raise BadSample(
                "no uId such as CXR1012", where=str(path), mend="give the XML files of Open-i's NLMCXR_reports"
            )
        sections = {one.get("Label", "").lower(): "".join(one.itertext()).strip() for one in root.iter("AbstractText")}
        found.append(
            Tagged(
                number=int(str(identity.get("id")).removeprefix("CXR")),
                text="\n".join(filter(None, (sections.get("findings"), sections.get("impression")))),
                tags=tuple((one.text or "").strip() for one in root.iter("major")),
                automatic=tuple((one.text or "").strip() for one in root.iter("automatic")),
            )
        )
    if not found:
        raise BadSample("no XML file", where=str(folder), mend="give the folder of Open-i's NLMCXR_reports")
    return sorted(found, key=lambda one: one.number)
