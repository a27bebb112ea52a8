"""Marks of de-identification, furniture of pages, white space: what goes, what is reported, and what must survive."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from time import perf_counter

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.reports.cleaning import apply_policy, blanks, repair
from medvlm.data_recipes.reports.pages import remove_page_furniture
from medvlm.data_recipes.reports.sentences import sentences, without

MEASURES = [
    "3.2 cm", "4 x 5.5 mm", "T1", "T2-weighted", "L4/5", "L4-L5", "12/13 ribs", "1.5T", "5 mm.", "SUV 2.4", "-950 HU",
    "BI-RADS 4", "1,200 mL", "C5/6", "2/10", "pH 7.35", "10%", "q.d.", "No. 7", "i.e. small", "6th rib",
]  # fmt: skip


# --- marks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Chest x-XXXX and XXXX", ["crosses", "crosses"]),
        ("___F with ___", ["underscores", "underscores"]),
        ("[**2151-7-16**] [**Hospital 12**] [**Name (NI) 3**]", ["shifted date", "bracket", "bracket"]),
        ("seen by <hcw> at <unk>, [REDACTED] [Name 2] <DATE>", ["bracket"] * 5),
        ("███ removed", ["bar"]),
        ("All dates are offset from the actual dates by a fixed interval.", ["shifted date"]),
        (f"WET READ\n{'_' * 40}\nFINAL", []),
        ("XX chromosome, MAXXX, section XXI, exxxact, <3 cm, [see below]", []),
    ],
)
def test_marks_of_public_collections(text: str, kinds: list[str]) -> None:
    found = blanks(text)
    assert [blank.kind for blank in found] == kinds
    assert all(text[blank.start : blank.end] == blank.text for blank in found)
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_the_three_policies() -> None:
    text = "1. Lungs clear, see Dr. ___ note.\n2. A 3.2 cm nodule at T4. Seen on XXXX.\n3. Heart normal."
    assert apply_policy(text, "keep", where="r").text == text
    cleaned = apply_policy(text, "drop_sentence", where="r")
    assert cleaned.text == "2. A 3.2 cm nodule at T4.\n3. Heart normal." and len(cleaned.blanks) == 2
    assert cleaned.dropped == ("1. Lungs clear, see Dr. ___ note.", "Seen on XXXX.")
    with pytest.raises(BadSample, match="r: the text holds 2 marks of de-identification, the first is underscores"):
        apply_policy(text, "refuse", where="r")
    with pytest.raises(BadSample, match="no sentence of the text is left"):
        apply_policy("IMPRESSION: 1. Seen by ___.", "drop_sentence", where="r")
    with pytest.raises(ValueError, match="use one of keep, drop_sentence, refuse"):
        apply_policy(text, "mask", where="r")  # type: ignore[arg-type]
    assert apply_policy("All clear.", "refuse", where="r").text == "All clear."


def test_sentences_end_where_people_end_them() -> None:
    text = (
        "1. No change vs. the left, e.g. at 3.2 cm. Is it new? 2. See Fig. 3 and No. 7 of Dr. A.\n"
        "- bullet\n- second\n\nLast one without stop\n\nHeart is normal.Lungs are clear. There is no. Thus nothing"
    )
    assert [s.text for s in sentences(text)] == [
        "1. No change vs. the left, e.g. at 3.2 cm.", "Is it new?", "2. See Fig. 3 and No. 7 of Dr. A.", "- bullet",
        "- second", "Last one without stop", "Heart is normal.", "Lungs are clear.", "There is no.", "Thus nothing",
    ]  # fmt: skip
    assert all(text[s.start : s.end] == s.text for s in sentences(text))
    whole = sentences(text)
    assert without(text, ()) == text and without(text, whole) == ""


# --- what must survive ---------------------------------------------------------------------------------------


def report_of(rng: random.Random) -> str:
    """Sentences with measures in random order and with random breaks between the words."""
    words = []
    for measure in rng.sample(MEASURES, 8):
        words += ["Lesion", "of", *measure.split(), "seen", "here."]
    return "".join(word + rng.choice([" ", " ", " ", "  ", "\t", "\n", "\u00a0", " \n "]) for word in words)


@pytest.mark.parametrize("seed", range(40))
def test_measurements_survive_everything(seed: int) -> None:
    text = report_of(random.Random(seed))
    expected = text.split()
    assert repair(text).text.split() == expected
    assert repair(text, unwrap=False).text.split() == expected
    assert blanks(text) == ()
    assert " ".join(s.text for s in sentences(text)).split() == expected
    pages = [f"ACME Clinic\nFirst {n}.\n{text}\nLast {n}.\nPage {n} of 2\n" for n in (1, 2)]
    unpaged = remove_page_furniture("\f".join(pages)).text.split()
    assert unpaged == ["First", "1.", *expected, "Last", "1.", "First", "2.", *expected, "Last", "2."]
    marked = apply_policy(f"{text} Seen by ___. End.", "drop_sentence", where="r").text
    assert marked.split() == [*expected, "End."]


@pytest.mark.parametrize("seed", range(20))
def test_repair_changes_nothing_the_second_time(seed: int) -> None:
    once = repair(report_of(random.Random(seed))).text
    assert repair(once).text == once and repair(once).joined == ()


def test_hyphens_at_the_end_of_a_line() -> None:
    broken = [
        "A pneumo-\nthorax,",
        "left-\nsided,",
        "x-\nray,",
        "T1-\nweighted,",
        "L4-\nL5,",
        "3-\n4 cm,",
        "B6-\nvein,",
    ]
    fixed = repair(" ".join([*broken, "wide-open door, wide-\nopen, soft\u00ad\ness"]))
    assert fixed.text == (
        "A pneumothorax, left-sided, x-ray, T1-weighted, L4-L5, 3-4 cm, B6-vein, wide-open door, wide-open, softess"
    )
    assert fixed.joined == ("pneumothorax",)


def test_lines_of_a_paragraph_are_joined_and_lists_and_headers_are_not() -> None:
    text = "FINDINGS:\r\nLungs are\r\nclear.<BR>Yes.\r\n1. One\r\n   more\r\n2. Two\r\n"
    text += "IMPRESSION: Normal\r\nheart.\r\n\r\n\r\n\r\nEnd."
    assert repair(text).text == (
        "FINDINGS:\nLungs are clear. Yes.\n1. One more\n2. Two\nIMPRESSION: Normal heart.\n\nEnd."
    )
    assert repair("a\nb\n\n\nc", unwrap=False).text == "a\nb\n\nc"


# --- pages ---------------------------------------------------------------------------------------------------

FIRST = """St. Example Hospital - Department of Radiology
Patient: Doe, Jane    MRN: 12345
EXAM: CT CHEST
FINDINGS:
Nodule 1: 4 mm.
The lungs are otherwise
Accession Number: 998877
Printed by DOE on 01/02/2020 10:00
Page 1 of 2
"""
SECOND = """St. Example Hospital - Department of Radiology
Patient: Doe, Jane    MRN: 12345
EXAM: CT CHEST
clear.
Nodule 1: 4 mm.
IMPRESSION: Nodule.
Accession Number: 998877
Printed by DOE on 01/02/2020 10:01
Page 2 of 2
"""
BODY = (
    "EXAM: CT CHEST\nFINDINGS:\nNodule 1: 4 mm.\nThe lungs are otherwise\nclear.\nNodule 1: 4 mm.\nIMPRESSION: Nodule."
)


@pytest.mark.parametrize("between", ["\f", "\n\f\n", ""])
def test_page_headers_and_footers_go_and_are_reported(between: str) -> None:
    found = remove_page_furniture(FIRST + between + SECOND)
    assert found.text == BODY and found.pages == 2
    assert [(line.page, line.why) for line in found.removed] == [
        (1, "repeated on 2 pages"), (1, "repeated on 2 pages"), (1, "export words"), (1, "export words"),
        (1, "page number"), (2, "repeated on 2 pages"), (2, "repeated on 2 pages"), (2, "repeated on 2 pages"),
        (2, "export words"), (2, "export words"), (2, "page number"),
    ]  # fmt: skip
    assert found.removed[0].text == "St. Example Hospital - Department of Radiology"
    assert "Doe" not in repr(found.removed)


def test_repetition_needs_no_words() -> None:
    """Layout of an export that nobody has seen: only the repetition at the edges tells."""
    pages = [f"~~ qx-7 ~~\nsome letters {n}\nBody line {n} is its own.\nOther text {n}.\n== zz ==" for n in range(4)]
    found = remove_page_furniture("\f".join(pages))
    assert "qx-7" not in found.text and "zz" not in found.text
    assert found.text.count("Body line") == 4 and len(found.removed) == 8
    # In the middle of a page, or on one page of four, a line that is repeated stays.
    middle = "\f".join(f"Own {n}.\nNo effusion.\nAlso own {n}." for n in range(4))
    assert remove_page_furniture(middle).text.count("No effusion.") == 4


def test_one_page_and_words_of_other_languages() -> None:
    assert remove_page_furniture("FINDINGS: 1/2 of the lung.\nClear.").removed == ()
    found = remove_page_furniture("Befund: normal.\nSeite 1 von 1\nGedruckt am 1.2.2020\n- 3 -\nImpreso por X\nEnde.")
    assert found.text == "Befund: normal.\nEnde." and len(found.removed) == 4
    assert remove_page_furniture("").text == "" and remove_page_furniture("\f\f").text.strip() == ""


def test_a_measurement_that_both_pages_begin_with_stays() -> None:
    found = remove_page_furniture("Head\nLargest node 12 mm\nA.\n\fHead\nLargest node 12 mm\nB.")
    assert found.text.split("\n") == ["Largest node 12 mm", "A.", "Largest node 12 mm", "B."]


def test_pages_that_are_copies_of_each_other_are_kept() -> None:
    page = "Head\nNo effusion.\nFoot\n"
    assert remove_page_furniture(f"{page}\f{page}").text.count("No effusion.") == 2


def test_a_section_header_that_both_pages_begin_with_stays() -> None:
    found = remove_page_furniture("Head\nFINDINGS:\nA.\n\fHead\nFINDINGS:\nB.")
    assert re.sub(r"\s+", " ", found.text) == "FINDINGS: A. FINDINGS: B."


@pytest.mark.parametrize(
    "text",
    ["x " * 40000 + "A" * 20000, " " * 40000 + "x", "[**" * 20000, ". " * 20000, "a-\n" * 20000, "\n \n" * 15000],
)
def test_odd_texts_take_no_time(text: str) -> None:
    """Each of these once took minutes in one of the rules; a corpus holds such a text somewhere."""
    began = perf_counter()
    for rule in (blanks, repair, sentences, remove_page_furniture):
        rule(text)
    assert perf_counter() - began < 10
