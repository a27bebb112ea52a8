"""Sections of reports in the layouts of MIMIC-CXR, Open-i and CheXpert Plus and in five languages; own texts."""

from __future__ import annotations

import random
import unicodedata

import pytest

from medvlm.data_recipes.reports.headers import headers
from medvlm.data_recipes.reports.sections import Report, from_parts, sections


def cut(text: str) -> Report:
    """The report, after a check that every section is the text at its place and that none overlaps the next."""
    report = sections(text)
    reached = 0
    for part in report.parts:
        assert text[part.start : part.end] == part.text and part.start >= reached
        reached = part.end
    return report


MIMIC = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old woman with cough  // rule out pneumonia

 TECHNIQUE:  Frontal and lateral views of the chest

 COMPARISON:  ___

 FINDINGS:

 Lungs are clear.  A 3.2 cm nodule lies at T4.

 BONES:  Old fracture of rib 7.

 IMPRESSION:

 1. No pneumonia.
 2. Nodule of 3.2 cm.

 RECOMMENDATION(S):  CT of the chest.
"""


def test_a_report_of_mimic_with_all_headers() -> None:
    report = cut(MIMIC)
    assert report.indication == "___ year old woman with cough  // rule out pneumonia"
    assert report.technique == "Frontal and lateral views of the chest" and report.comparison == "___"
    # Upper-case subheadings and paragraphs belong to the findings; numbers of the impression stay.
    assert report.findings == "Lungs are clear.  A 3.2 cm nodule lies at T4.\n\n BONES:  Old fracture of rib 7."
    assert report.impression == "1. No pneumonia.\n 2. Nodule of 3.2 cm."
    assert report.others == {"examination": "CHEST (PA AND LAT)", "recommendations": "CT of the chest."}
    assert report.history is None and report.last_paragraph is None and report.repeated == ()


def test_a_wet_read_and_an_addendum_are_not_the_report() -> None:
    report = cut(
        "WET READ: ___ ___ 10:02 AM\n  IMPRESSION: Wet impression.\n ______________________________________\n"
        "     FINAL REPORT\n FINDINGS: Clear.\n\n IMPRESSION: Final impression.\n\n"
        " ADDENDUM:  Later.\n IMPRESSION: Corrected impression.\n"
    )
    assert report.impression == "Final impression." and report.findings == "Clear."
    assert report.others["wet read: impression"] == "Wet impression."
    assert report.others["addendum"] == "Later." and report.others["addendum: impression"] == "Corrected impression."


def test_a_line_across_the_page_ends_a_wet_read_without_a_final_header() -> None:
    report = cut("WET READ: No pneumonia.\n ______________________\n CHEST, ONE VIEW.\n\n IMPRESSION: Clear.")
    assert report.impression == "Clear." and report.others == {"wet read": "No pneumonia."}
    assert [part.text for part in report.unlabelled] == ["CHEST, ONE VIEW."]


def test_the_last_paragraph_is_offered_and_never_called_impression() -> None:
    text = (
        " FINAL REPORT\n HISTORY:  Cough.\n\n COMPARISON:  None.\n\n Heart is normal.\n Lungs clear.\n\n No disease.\n"
    )
    report = cut(text)
    assert report.impression is None and report.findings is None and report.history == "Cough."
    assert report.comparison == "None."
    assert report.last_paragraph is not None and report.last_paragraph.text == "No disease."
    assert text[report.last_paragraph.start : report.last_paragraph.end] == "No disease."
    # With a findings header there is nothing to offer: what follows it belongs to it.
    assert cut(text + " FINDINGS: Clear.").last_paragraph is None
    # A paragraph under the header of another section is not offered either.
    assert cut("INDICATION: Cough.").last_paragraph is None
    assert cut("Only one sentence.").last_paragraph is not None and cut("  ").last_paragraph is None


@pytest.mark.parametrize(
    "header", ["FINDINGS AND IMPRESSION", "FINDINGS/IMPRESSION", "IMPRESSION AND FINDINGS", "Findings & Impression"]
)
def test_one_header_for_both_is_neither_of_them(header: str) -> None:
    report = cut(f"INDICATION: Cough.\n{header}: Lungs are clear.\n")
    assert report.findings_and_impression == "Lungs are clear."
    assert report.findings is None and report.impression is None and report.last_paragraph is None


def test_headers_inline_on_their_own_line_and_in_markdown() -> None:
    inline = cut("Chest radiograph. FINDINGS: Clear at 12:30. IMPRESSION: Normal. No findings: see above.")
    assert (inline.findings, inline.impression) == ("Clear at 12:30.", "Normal. No findings: see above.")
    own = cut("Findings\nClear.\n\nImpression\n1. Normal.\n2. Old scar.")
    assert (own.findings, own.impression) == ("Clear.", "1. Normal.\n2. Old scar.")
    marked = cut("## Findings\nClear.\n\n**Impression:** Normal.\n**Technique**: Two views.")
    assert (marked.findings, marked.impression, marked.technique) == ("Clear.", "Normal.", "Two views.")
    # Words that are no headers: lower case inside a line, a noun of a sentence, a header word without a colon.
    plain = cut("There are no findings: clear.\nFindings are normal.\nimpression of the stomach on the diaphragm")
    assert [part.name for part in plain.parts] == [""]


def test_an_impression_that_comes_twice() -> None:
    same = cut("IMPRESSION: 1. Clear lungs.\nNARRATIVE: Chest.\nIMPRESSION:  1.  CLEAR LUNGS.\nEND OF IMPRESSION: x")
    assert same.impression == "1. Clear lungs." and same.repeated == ()
    other = cut("IMPRESSION: Clear.\nIMPRESSION: Effusion.")
    assert other.impression == "Clear.\nEffusion." and other.repeated == ("impression",)
    assert cut("FINDINGS: A.\nFINDINGS (continued): B.").findings == "A.\nB."


def test_a_whole_report_of_chexpert_plus() -> None:
    report = cut(
        "NARRATIVE:\nRADIOGRAPHIC EXAMINATION OF THE CHEST: 1/2/2003\n\n"
        "CLINICAL HISTORY: Fever.\n\nCOMPARISON: 1/1/2003.\n\n"
        "PROCEDURE COMMENTS: One view.\n\nFINDINGS:\nClear.\n\nIMPRESSION:\n\n1. CLEAR LUNGS.\n\n2. NO EDEMA.\n\n"
        "END OF IMPRESSION:\n\nSUMMARY: 4 ABNORMAL\nACCESSION NUMBER:\n123\n"
    )
    assert report.history == "Fever." and report.findings == "Clear."
    assert report.impression == "1. CLEAR LUNGS.\n\n2. NO EDEMA."
    assert report.others["radiographic examination of the chest"] == "1/2/2003"
    assert report.others["summary"] == "4 ABNORMAL" and report.others["accession number"] == "123"


def test_columns_and_labels_are_sections_and_are_not_cut_again() -> None:
    report = from_parts(
        [("section_clinical_history", "Fever."), ("section_findings", "IMPRESSION: stays inside."),
         ("impression", None),
         ("section_technique", " "), ("COMPARISON", "None.")]
    )  # fmt: skip
    assert (report.history, report.findings, report.comparison) == ("Fever.", "IMPRESSION: stays inside.", "None.")
    assert report.impression is None and report.technique is None
    assert all(report.text[part.start : part.end] == part.text for part in report.parts)


LANGUAGES = {
    "de": (
        "Indikation: Husten.\nVergleich: keine.\nTechnik: p.a.\n\nBefund:\nKein Erguss.\n\nBeurteilung:\nNormal.",
        ("Kein Erguss.", "Normal.", "Husten.", "keine."),
    ),
    "es": (
        "INDICACIÓN: Tos.\nTécnica: PA.\nComparación: ninguna.\nHALLAZGOS: Sin derrame.\nIMPRESIÓN: Normal.",
        ("Sin derrame.", "Normal.", "Tos.", "ninguna."),
    ),
    "fr": (
        "Indication : Toux.\nTechnique : PA.\nComparaison : non.\nRésultats :\nPas de foyer.\nConclusion : Sain.",
        ("Pas de foyer.", "Sain.", "Toux.", "non."),
    ),
    "pt": (
        "Indicação: Tosse.\nTécnica: PA.\nComparação: nenhuma.\nAchados: Sem infiltrados.\nImpressão: Normal.",
        ("Sem infiltrados.", "Normal.", "Tosse.", "nenhuma."),
    ),
}


@pytest.mark.parametrize("form", ["NFC", "NFD", "without accents"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_header_words_of_other_languages(language: str, form: str) -> None:
    def formed(text: str) -> str:
        if form == "without accents":
            return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
        return unicodedata.normalize(form, text)  # type: ignore[arg-type]

    text, expected = LANGUAGES[language]
    report = cut(formed(text))
    found = (report.findings, report.impression, report.indication, report.comparison)
    assert found == tuple(formed(part) for part in expected) and report.technique


def test_windows_line_ends_and_headers_that_are_not_known() -> None:
    report = cut("CT CHEST:\r\nINDICATION:\r\nCough.\r\n\r\nLOOSE TEXT without colon\r\nFINDINGS:\r\nClear.\r\n")
    assert report.indication == "Cough." and report.findings == "Clear."
    assert [part.text for part in report.unlabelled] == ["LOOSE TEXT without colon"]
    names = [(header.name, header.known) for header in headers("PHARMACY: x\nTime 10:30\nAB: y\nIMPRESSION: z")]
    assert names == [("pharmacy", False), ("impression", True)]


PIECES = [
    "FINDINGS:", "IMPRESSION:", "Impression:", "INDICATION:", "COMPARISON:", "HISTORY", "WET READ:", "FINAL REPORT",
    "ADDENDUM:", "________________", "\n", "\n\n", "lungs", "are clear.", "1.", "3.2 cm", "___", "CT CHEST:", "LUNGS:",
    "Befund:", "NARRATIVE:", "END OF IMPRESSION:", "x-ray", "(continued)",
]  # fmt: skip


@pytest.mark.parametrize("seed", range(0, 400, 20))
def test_no_word_is_lost_and_none_is_in_two_sections(seed: int) -> None:
    for number in range(seed, seed + 20):
        rng = random.Random(number)
        text = "".join(rng.choice(PIECES) + rng.choice([" ", "", "\n"]) for _ in range(rng.randrange(1, 25)))
        places = [(part.start, part.end) for part in cut(text).parts] + [(h.start, h.end) for h in headers(text)]
        kept = {place for start, end in places for place in range(start, end)}
        assert not "".join(c for place, c in enumerate(text) if place not in kept).strip("_ \n"), text
