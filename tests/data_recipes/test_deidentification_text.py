"""Identifiers in texts: what rules must find, what they must leave alone, and what masking writes."""

from __future__ import annotations

import json
import sys

import pytest

from medvlm.data_recipes.deidentification.language_model import BadAnswer, finder_of_command, spans_of
from medvlm.data_recipes.deidentification.masking import MARKS, finder_of_words, left_over, mask
from medvlm.data_recipes.deidentification.protected import measurement_spans
from medvlm.data_recipes.deidentification.text import Identifier, find_identifiers

FOUND = [
    ("Dr. Miller", "Miller", "name"),
    ("seen with Dr Jane Q. Miller today", "Jane Q. Miller", "name"),
    ("Patient: DOE, JANE", "DOE, JANE", "name"),
    ("Patient Name: Jane Doe DOB: 03/14/1950", "Jane Doe", "name"),
    ("Patient Name: Jane Doe DOB: 03/14/1950", "03/14/1950", "date"),
    ("name: jane doe", "jane doe", "name"),
    ("dictated by John Smith, MD", "John Smith", "name"),
    ("Electronically signed by: SMITH^JOHN^A", "SMITH^JOHN^A", "name"),
    ("PID|DOE^JANE|", "DOE^JANE", "name"),
    ("Mr. Jones is here", "Jones", "name"),
    ("Prof. Dr. med. Müller", "Müller", "name"),
    ("Herr Schmidt klagt", "Schmidt", "name"),
    ("discussed with Dr. O'Brien at 10:30", "O'Brien", "name"),
    ("DICTATED BY: ROBERT MILLER, M.D.", "ROBERT MILLER", "name"),
    ("his wife Mary Jones called", "Mary Jones", "name"),
    ("John Smith was seen", "John Smith", "name"),
    ("Patient Jane Doe came", "Jane Doe", "name"),  # "Patient Jane" is no name, and must not hide one
    ("Findings, Doe, Jane", "Doe, Jane", "name"),
    ("MRN: 00123456", "00123456", "record_number"),
    ("MRN 12-34-56", "12-34-56", "record_number"),
    ("Accession #: A-9981234", "A-9981234", "record_number"),
    ("SSN 123-45-6789", "123-45-6789", "id_number"),
    ("NHS number: 943 476 5919", "943 476 5919", "id_number"),
    ("Insurance ID: ABC123456789", "ABC123456789", "id_number"),
    ("Account number 889912", "889912", "id_number"),
    ("UID 1.2.840.113619.2.55.3.604688", "1.2.840.113619.2.55.3.604688", "id_number"),
    ("from 10.1.22.33", "10.1.22.33", "ip_address"),
    ("call (317) 555-1234", "(317) 555-1234", "phone"),
    ("317-555-1234", "317-555-1234", "phone"),
    ("Fax: +49 30 901820", "+49 30 901820", "phone"),
    ("pager 12345", "12345", "phone"),
    ("write to jane.doe@example.org.", "jane.doe@example.org", "email"),
    ("see https://example.org/x?y=1.", "https://example.org/x?y=1", "url"),
    ("12 Maple Street, Springfield, IL 62704", "12 Maple Street, Springfield, IL 62704", "address"),
    ("Musterstraße 12, 10115 Berlin", "Musterstraße 12, 10115 Berlin", "address"),
    ("12 rue de la Paix, 75002 Paris", "12 rue de la Paix, 75002 Paris", "address"),
    ("lives in Springfield", "Springfield", "address"),
    ("PO Box 12", "PO Box 12", "address"),
    ("92-year-old man", "92", "age_over_89"),
    ("94 yo", "94", "age_over_89"),
    *(
        (f"seen {when}, stable", when, "date")
        for when in (
            "2019-03-14", "03/14/2019", "14.03.2019", "14.3.19", "March 14, 2019", "14 March 2019", "14th of March",
            "14. März 2019", "14 de marzo de 2019", "1er mars 2019", "14 août 2019", "14 de março de 2019",
            "14 maggio 2019", "14-Mar-2019", "14MAR2019", "May 5, 2019", "March 2019", "20190314", "10/2/18",
        )
    ),
    ("comparison of 3/14", "3/14", "date"),
    ("since January", "January", "date"),
    ("2019-03-14T10:22:00", "2019-03-14", "date"),
]  # fmt: skip

LEFT_ALONE = [
    "3.2 cm", "12 x 14 mm", "L4/5", "T2/FLAIR", "C5-6", "BI-RADS 4", "10/10 pain", "series 3 image 45", "120/80",
    "5-6 days", "Hounsfield units", "Kerley B lines", "Swan-Ganz", "Foley catheter", "Parkinson disease", "Hodgkin",
    "XXXX", "___", "[**2101-3-4**]", "Dr. XXXX", "Dr. ___ was paged", "MR Brain with contrast", "MS Plaques. CT Chest",
    "history of MS. No prior", "reviewed by the attending", "discussed with ED at 10:30", "Patient: Male",
    "The patient is stable in 2019", "ejection fraction 55-60%", "lives in XXXX", "[NAME] seen on [DATE] at 10:22",
    "Graham Steell murmur", "Austin Flint murmur", "1.5 T", "-1000 HU", "GCS 15", "Gleason 3+4", "Charcot-Marie-Tooth",
    "10/12/8 mm", "size 10-12-15 mm", "45-year-old", "Patient: 45 year old male", "Signed by: XXXX", "5/10 since 2012",
    "may 5 mm", "TR 500 TE 12.5", "L5-S1 disc", "[OVER 89]-year-old", "CT 64000 images", "Salter-Harris II",
]  # fmt: skip


@pytest.mark.parametrize(("text", "words", "kind"), FOUND, ids=[f"{f[2]}-{n}" for n, f in enumerate(FOUND)])
def test_found(text, words, kind):
    assert (words, kind) in {(text[one.start : one.end], one.kind) for one in find_identifiers(text)}


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_left_alone(text):
    assert find_identifiers(text) == ()
    assert find_identifiers(f"Findings: {text} in the scan.") == ()


REPORT = """Patient Name: Jane Doe   MRN: 00123456   DOB: 03/14/1950
INDICATION: 93-year-old, cough since 14 March 2019. Call 317-555-1234.
FINDINGS: A 3.2 cm mass and a 12 x 14 mm node at L4/5, 120/80, unchanged from 02/01/2019 in series 3 image 45.
Electronically signed by: Robert Miller, M.D."""


def test_mask_keeps_measurements_and_removes_the_rest():
    text, written = mask(REPORT)
    for gone in ("Jane", "Doe", "00123456", "1950", "93", "March", "555", "02/01", "Miller"):
        assert gone not in text
    for kept in ("3.2 cm", "12 x 14 mm", "L4/5", "120/80", "series 3 image 45", "M.D.", "-year-old"):
        assert kept in text
    assert left_over(text, written) == () and find_identifiers(text) == ()
    assert all(text[a:b] in MARKS.values() for a, b in written)


def test_dates_move_together_and_intervals_stay():
    text, written = mask("on 2019-03-14 and 14 March 2020, 15.03.2020, 03/04/2020, March 2019", days=-100)
    assert text == "on 2018-12-04 and 2019-12-05, 2019-12-06, [DATE], [DATE]"
    assert left_over(text, written) == ()
    assert mask("03/04/2020", days=-1, date_order="dmy")[0] == "2020-04-02"
    assert mask("03/04/2020", days=-1, date_order="mdy")[0] == "2020-03-03"


def test_a_hook_adds_names_and_never_masks_measurements():
    text = "Zebulon has a 3.2 cm mass, BI-RADS 4, XXXX."

    def greedy(words):
        return [Identifier(kind="name", start=0, end=len(words))]

    masked, _ = mask(text, more=[greedy])
    assert "Zebulon" not in masked
    for kept in ("3.2 cm", "BI-RADS 4", "XXXX"):
        assert kept in masked
    spans = measurement_spans(text)
    assert [text[a:b] for a, b in spans] == ["3.2 cm", "BI-RADS 4"]


def test_llm_command_gives_spans(tmp_path):
    script = tmp_path / "finder.py"
    script.write_text(
        "import json, sys\ntext = sys.stdin.read()\nat = text.find('Zebulon')\n"
        "print(json.dumps([{'kind': 'name', 'start': at, 'end': at + 7}] if at >= 0 else []))\n"
    )
    finder = finder_of_command(f"{sys.executable} {script}")
    assert mask("mass of Zebulon, 3.2 cm", more=[finder])[0] == "mass of [NAME], 3.2 cm"
    assert mask("nothing", more=[finder])[0] == "nothing"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import sys; sys.exit(3)", "exit code 3"),
        ("print('Zebulon')", "did not answer in JSON"),
        ('print(\'[{"kind": "name", "start": 0, "end": 99}]\')', "span 1"),
        ("import time; time.sleep(9)", "no answer"),
    ],
)
def test_a_bad_answer_is_refused_without_the_text(tmp_path, script, words):
    (tmp_path / "finder.py").write_text(script)
    finder = finder_of_command(f"{sys.executable} {tmp_path / 'finder.py'}", seconds=2)
    with pytest.raises(BadAnswer, match=words) as error:
        mask("Zebulon", more=[finder])
    assert "Zebulon" not in str(error.value)


def test_spans_must_have_a_known_kind():
    with pytest.raises(BadAnswer, match="span 1"):
        spans_of(json.loads('[{"kind": "mood", "start": 0, "end": 1}]'), 5)
    with pytest.raises(BadAnswer, match="no list"):
        spans_of({}, 5)


def test_known_words_are_found_unless_they_are_ordinary_ones():
    find = finder_of_words({"Weiss", "White", "Left"}, {"A77123", "12"})
    text = "WEISS and white matter on the left of Ms White, id a77123, 12 mm"
    assert [text[one.start : one.end] for one in find(text)] == ["WEISS", "White", "a77123"]
