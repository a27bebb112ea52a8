"""Priors by date and time: never in the future, never guessed; and words that speak of a prior."""

from __future__ import annotations

import random
from datetime import date, time

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.reports.priors import (
    Moment,
    StudyTime,
    link_priors,
    read_moment,
    speaks_of_prior,
    without_prior,
)


def study(name: str, day: str = "", clock: str = "", **changes: str | None) -> StudyTime:
    values: dict[str, str | None] = {"patient_id": "p", "modality": "DX", "body_part": "chest", **changes}
    return StudyTime(study_id=name, moment=read_moment(day, clock, where="t"), **values)  # type: ignore[arg-type]


def prior_of(name: str, *studies: StudyTime, window_days: int | None = None) -> tuple[str | None, int | None, str]:
    link = link_priors(studies, window_days=window_days)[name]
    return link.prior_id, link.days, link.reason


def test_dates_and_times_as_dicom_and_tables_write_them() -> None:
    assert read_moment("21800506", "213014.531", where="t") == Moment(day=date(2180, 5, 6), clock=time(21, 30, 14))
    assert read_moment("2180-05-06", "1405.0", where="t") == Moment(day=date(2180, 5, 6), clock=time(0, 14, 5))
    assert read_moment("21800506.0", "21:30:14", where="t") == Moment(day=date(2180, 5, 6), clock=time(21, 30, 14))
    assert read_moment("21800506", where="t") == Moment(day=date(2180, 5, 6)) and read_moment(" ", where="t") is None
    for day, clock in (("2180", ""), ("21801301", ""), ("21800506", "256100"), ("21800506", "noon")):
        with pytest.raises(BadSample, match=r"is no (date|time)"):
            read_moment(day, clock, where="t")


def test_the_latest_earlier_study_is_the_prior() -> None:
    three = (study("c", "20200310"), study("a", "20200101"), study("b", "20200204"))
    assert prior_of("c", *three) == ("b", 35, "linked") and prior_of("b", *three)[:2] == ("a", 34)
    assert prior_of("a", *three) == (None, None, "no other study is earlier")
    assert prior_of("c", *three, window_days=35)[0] == "b"
    assert prior_of("c", *three, window_days=34)[2] == (
        "the latest earlier study is 35 days earlier, outside the window of 34"
    )
    same_day = (study("late", "20200101", "120000"), study("early", "20200101", "080000"))
    assert prior_of("late", *same_day) == ("early", 0, "linked") and prior_of("early", *same_day)[0] is None


def test_ties_and_unknown_dates_stay_unlinked_with_a_reason() -> None:
    now, before = study("now", "20200310", "100000"), study("before", "20200101", "100000")
    undecided = "another study is of the same day, and no time says which came first"
    assert prior_of("now", now, before, study("same", "20200310"))[::2] == (None, undecided)
    assert prior_of("now", now, before, study("same", "20200310", "100000"))[::2] == (None, undecided)
    equally = "two earlier studies are equally late, as far as dates and times tell"
    assert prior_of("now", now, before, study("twin", "20200101"))[::2] == (None, equally)
    assert prior_of("now", now, before, study("twin", "20200101", "100000"))[::2] == (None, equally)
    # The tie lies before the prior, so it does not matter.
    assert prior_of("now", now, before, study("x", "20190101"), study("y", "20190101"))[0] == "before"
    assert prior_of("now", now, study("no date"))[2] == "no other study is known to be earlier"
    assert prior_of("now", now, before, study("no date"))[0] is None
    assert prior_of("no date", now, study("no date"))[2].startswith("the study has no")
    assert prior_of("now", now)[2] == "the patient has no other study"


def test_only_the_same_patient_modality_and_body_part() -> None:
    now = study("now", "20200310")
    for other in (
        study("x", "20200101", modality="CT"),
        study("x", "20200101", body_part="hand"),
        study("x", "20200101", modality=None),
    ):
        assert prior_of("now", now, other)[0] is None
    assert prior_of("now", now, study("x", "20200101", patient_id="q"))[2] == "the patient has no other study"
    unknown = (study("a", "20200101", modality=None), study("b", "20200202", modality=None))
    assert prior_of("b", *unknown)[0] == "a"
    # A study of another modality on the same day does not make the order unknown.
    assert prior_of("now", now, study("ct", "20200310", modality="CT"), study("x", "20200101"))[0] == "x"


def test_what_cannot_be_linked_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="study 'a' is given twice"):
        link_priors([study("a", "20200101"), study("a", "20200102")])
    with pytest.raises(ValueError, match="window_days is -1"):
        link_priors([], window_days=-1)


@pytest.mark.parametrize("seed", range(30))
def test_no_prior_lies_in_the_future_and_order_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    studies = [
        study(
            str(n), rng.choice(["", *(f"202001{d:02d}" for d in range(1, 15))]), rng.choice(["", "080000", "120000"]),
            patient_id=rng.choice("pq"), modality=rng.choice(["DX", "CT"]),
        )
        for n in range(12)
    ]  # fmt: skip
    links, known = link_priors(studies), {s.study_id: s for s in studies}
    assert link_priors(rng.sample(studies, len(studies))) == links and list(links) == [s.study_id for s in studies]
    for link in links.values():
        assert (link.prior_id is None) == (link.days is None) == (link.reason != "linked")
        if link.prior_id is None:
            continue
        now, before = known[link.study_id].moment, known[link.prior_id].moment
        assert now is not None and before is not None and link.prior_id != link.study_id
        assert (before.day, before.clock or time.min) < (now.day, now.clock or time.max)
        assert known[link.study_id].patient_id == known[link.prior_id].patient_id


# --- words ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Compared to the study of ___, the effusion is larger.", "In comparison with the prior radiograph.",
        "The nodule is unchanged.", "Interval increase in size.", "No interval change.", "A new left effusion.",
        "Heart size is stable.", "Previously seen opacity has resolved.", "Persistent effusion.",
        "Heart size remains normal.", "Improved aeration.", "Again seen is a pacemaker.", "Worse than prior.",
        "Increasing consolidation.", "Comparison ___.", "Im Vergleich zur Voraufnahme kein Erguss.",
        "Unveränderter Rundherd.", "Sin cambios respecto al estudio previo.", "Nodule inchangé par rapport à 2019.",
        "Nódulo inalterado.",
    ],
)  # fmt: skip
def test_texts_that_speak_of_a_prior(text: str) -> None:
    found = speaks_of_prior(text)
    assert found and all(text[m.start : m.end].strip() == m.words for m in found)


@pytest.mark.parametrize(
    "text",
    [
        "Lungs are clear.", "Prior sternotomy.", "Clips from prior cholecystectomy.", "Previous granulomatous disease.",
        "Degenerative changes of the spine.", "The QT interval is normal.", "Hemodynamically stable patient.",
        "No comparisons are available.", "Increased interstitial markings.", "The remaining lung is clear.",
        "Old fracture of rib 7.", "Newborn with distress.", "COMPARISON: None.", "Kein Erguss.", "Sin derrame.",
    ],
)  # fmt: skip
def test_texts_that_do_not(text: str) -> None:
    assert speaks_of_prior(text) == ()


def test_policies_for_a_prior_that_is_not_shown() -> None:
    text = "1. Unchanged nodule of 3.2 cm. 2. No effusion."
    assert without_prior(text, "keep", where="r").text == text
    cleaned = without_prior(text, "drop_sentence", where="r")
    assert cleaned.text == "2. No effusion." and cleaned.dropped == ("1. Unchanged nodule of 3.2 cm.",)
    with pytest.raises(BadSample, match=r"r: the text speaks of an earlier image \('Unchanged'\) and none is shown"):
        without_prior(text, "refuse", where="r")
    with pytest.raises(BadSample, match="no sentence of the text is left"):
        without_prior("No change.", "drop_sentence", where="r")
    assert without_prior("Clear.", "refuse", where="r").text == "Clear."
