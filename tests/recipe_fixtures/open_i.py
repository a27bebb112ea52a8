"""IU X-Ray (Open-i): eCitation XML in NLMCXR_reports/ecgen-radiology and radiographs in NLMCXR_png."""

from __future__ import annotations

from pathlib import Path

from recipe_fixtures.writing import Fixture, picture, text

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><meta type="rr"/><uId id="CXR{number}"/><pmcId id="{number}"/><licenseType>open-access</licenseType>
<licenseURL>http://creativecommons.org/licenses/by-nc-nd/4.0/</licenseURL>
<MedlineCitation Owner="Indiana University" Status="supplied by publisher"><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText>
<AbstractText Label="INDICATION">{indication}</AbstractText>
<AbstractText Label="FINDINGS">{findings}</AbstractText>
<AbstractText Label="IMPRESSION">No acute disease.</AbstractText>
</Abstract></Article></MedlineCitation>{images}</eCitation>"""
TEXTS = [("Cough", "Clear lungs."), ("", "XXXX is clear."), ("Pain", "")]
VIEWS = {1: ("frontal", "lateral"), 2: ("frontal",), 3: ("frontal",)}
REPORTS = Path("NLMCXR_reports") / "ecgen-radiology"


def write_reports(folder: Path, texts: list[tuple[str, str]] = TEXTS) -> None:
    for number, (indication, findings) in enumerate(texts, start=1):
        names = [f"CXR{number}_IM-{view}" for view in range(1, 1 + len(VIEWS[number]))]
        images = "".join(f'<parentImage id="{name}"/>' for name in names)
        report = REPORT.format(number=number, indication=indication, findings=findings, images=images)
        text(folder / REPORTS / f"{number}.xml", report)


def write(folder: Path) -> None:
    write_reports(folder)
    for number, views in VIEWS.items():
        for view in range(1, 1 + len(views)):
            picture(folder / "NLMCXR_png" / f"CXR{number}_IM-{view}.png", seed=10 * number + view)


def spoil(folder: Path) -> None:
    (folder / "NLMCXR_png" / "CXR2_IM-1.png").unlink()
    text(folder / REPORTS / "3.xml", "<eCitation>")


FIXTURE = Fixture(
    recipe="open-i",
    write=write,
    spoil=spoil,
    samples=3,
    refusals=(
        "{folder}/NLMCXR_reports/ecgen-radiology/2.xml: the image {folder}/NLMCXR_png/CXR2_IM-1.png is missing. "
        "Mend: download NLMCXR_png.tgz from https://openi.nlm.nih.gov/faq",
        "{folder}/NLMCXR_reports/ecgen-radiology/3.xml: not readable XML: no element found: line 1, column 11. "
        "Mend: download the file again",
    ),
)
