"""Checks that look at rows alone: patients, ids, answers, licences, texts, sides, shortcuts, spreads, identifiers."""

import json

import numpy as np
import pytest
from checked_set import row_of

from medvlm.data_recipes.checks.answers import Answers, Spread
from medvlm.data_recipes.checks.catalogue import Catalogue, manifests_in
from medvlm.data_recipes.checks.charts import spread_bars
from medvlm.data_recipes.checks.journal import Journal
from medvlm.data_recipes.checks.licences import Licences, terms_of
from medvlm.data_recipes.checks.patients import Patients, SampleIds
from medvlm.data_recipes.checks.private import judged_pixels, judged_tags
from medvlm.data_recipes.checks.private_texts import private_text_findings
from medvlm.data_recipes.checks.shortcuts import Shortcuts
from medvlm.data_recipes.checks.sides import Sides, augmentations_of, mirroring
from medvlm.data_recipes.checks.survey import refused
from medvlm.data_recipes.checks.targets import Targets, left_of
from medvlm.data_recipes.checks.texts import shingles, text_findings
from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.typed_yaml import BadConfig


def row(number, split="train", patient=None, **changes):
    made = row_of(number, None, split, patient or f"p{number}")
    return {**made, **changes}


def write(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def catalogue_of(tmp_path, rows, registered=()):
    known = [write(tmp_path / "registered.jsonl", registered)] if registered else []
    return Catalogue([write(tmp_path / "rows.jsonl", rows)], known)


def found(check, catalogue):
    for one in catalogue:
        check.see(one)
    return [(f.severity, int(f.where.rsplit(":", 1)[1])) for f in check.findings(catalogue)]


def asked(number, question, answer, split="train", patient=None, topic="presence"):
    made = row(number, split, patient)
    made["messages"] = [{"role": "user", "content": question}]
    made["metadata"] = {"topic": topic}
    if split == "train":
        made["messages"].append({"role": "assistant", "content": answer})
        made.pop("question", None)
    else:
        made["question"] = {"kind": "open", "answers": [answer], "topic": topic}
    return made


def test_rows_of_the_earlier_split_are_named_when_a_patient_is_in_two(tmp_path):
    rows = [row(0), row(1, patient="a"), row(2, "validation", "a"), row(3, "test", "a"), row(4, "test", "p9")]
    assert found(Patients(), catalogue_of(tmp_path, rows)) == [("error", 2), ("error", 3)]


def test_a_patient_of_a_registered_test_set_must_not_be_trained_on(tmp_path):
    rows = [row(0, patient="a"), row(1, "test", "b")]
    known = [row(7, "test", "a"), row(8, "test", "b")]
    assert found(Patients(), catalogue_of(tmp_path, rows, known)) == [("error", 1)]


def test_validation_and_test_share_a_patient_whom_a_registered_set_has_too(tmp_path):
    rows = [row(0, "validation", "a"), row(1, "test", "a")]
    assert found(Patients(), catalogue_of(tmp_path, rows, [row(7, "test", "a")])) == [("error", 1)]


def test_an_official_split_may_be_allowed_and_blank_lines_do_not_shift_rows(tmp_path):
    official = {"metadata": {"official_split": True}}
    rows = [row(0, patient="a", **official), row(1, "test", "a", **official)]
    catalogue = catalogue_of(tmp_path, rows)
    assert found(Patients(), catalogue) == [("error", 1)]
    assert found(Patients(allow_official=True), catalogue) == [("warning", 1)]
    path = tmp_path / "blank.jsonl"
    path.write_text("\n\n" + (tmp_path / "rows.jsonl").read_text())
    assert found(Patients(), Catalogue([path])) == [("error", 3)]


def test_the_second_row_of_an_id_is_named_and_registered_rows_do_not_count(tmp_path):
    rows = [row(0), row(1), row(0, patient="other"), row(0, patient="third")]
    assert found(SampleIds(), catalogue_of(tmp_path, rows, [row(1, "test")])) == [("error", 3), ("error", 4)]


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        ("XXXX", ""), ("___ .", ""), ("[**2151-7-16**]", ""), ("<NAME>", ""), ("[REDACTED]", ""), ("-", ""),
        ("***", ""),
        ("no", "no"), ("XXXX effusion", "effusion"), ("3", "3"), ("нет", "нет"), ("没有", "没有"), ("xx", "xx"),
        ("<box>(0.1, 0.2, 0.3, 0.4)</box>", "<box>(0.1, 0.2, 0.3, 0.4)</box>"),
    ],
)  # fmt: skip
def test_what_masks_leave_of_an_answer(answer, left):
    assert left_of(answer) == left


def test_empty_and_masked_answers_are_found_in_questions_and_preferences_too(tmp_path):
    pair = row(0)
    del pair["messages"][-1]
    pair["preference"] = {
        "chosen": [{"role": "assistant", "content": "___"}],
        "rejected": [{"role": "assistant", "content": "no effusion"}],
        "made_by": "hand",
    }
    rows = [pair, asked(1, "Why?", "...", "test"), asked(2, "Why?", "XXXX"), asked(3, "Why?", "because")]
    check = Targets()
    catalogue = catalogue_of(tmp_path, rows)
    assert found(check, catalogue) == [("error", 1), ("error", 2), ("error", 3)]
    assert [f.check for f in check.findings(catalogue)] == ["masked_targets", "empty_answers", "masked_targets"]


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"licence": ""}, "licences"),
        ({"licence": None}, "licences"),
        ({"messages": [{"role": "user", "content": "Why?"}]}, "empty_answers"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]}, "empty_answers"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": []}]}, "empty_answers"),
        ({"split": "dev"}, "rows"),
        ({"colour": "red"}, "rows"),
    ],
)
def test_a_row_that_is_refused_is_a_finding_of_the_check_it_belongs_to(tmp_path, changes, check):
    catalogue = catalogue_of(tmp_path, [row(0, **changes)])
    bad = catalogue.row(0)
    assert isinstance(bad, BadSample)
    finding = refused(bad, registered=False)
    assert (finding.check, finding.severity, finding.sample_id) == (check, "error", "s0")
    assert finding.where.endswith("rows.jsonl:1")


def test_a_question_without_answers_and_a_broken_line_are_told_apart(tmp_path):
    empty = asked(0, "Why?", "x", "test")
    empty["question"]["answers"] = [" "]
    path = write(tmp_path / "rows.jsonl", [empty])
    path.write_text(path.read_text() + "{broken\n")
    assert [refused(bad, False).check for bad in Catalogue([path])] == ["empty_answers", "rows"]


def test_licences_are_counted_and_unstated_ones_are_errors(tmp_path):
    rows = [row(0), row(1, licence="not stated: ask the holder of the files"), row(2, licence="CC BY-NC-ND 4.0")]
    check = Licences()
    assert found(check, catalogue_of(tmp_path, rows)) == [("error", 2), ("warning", 3)]
    assert {(one.licence, one.terms) for one in check.table()} >= {
        ("CC0-1.0", ()), ("CC BY-NC-ND 4.0", ("non-commercial", "no derivatives"))
    }  # fmt: skip


@pytest.mark.parametrize(
    ("licence", "terms"),
    [
        ("CC BY 4.0", ()), ("Apache-2.0", ()), ("CC BY-NC-SA 4.0 (CT-RATE)", ("non-commercial", "share alike")),
        ("PhysioNet Credentialed Health Data License 1.5.0", ("credentialed",)),
        ("non-commercial use (MedICaT)", ("non-commercial",)),
        ("no restriction, with attribution (NIH Clinical Center)", ()),
    ],
)  # fmt: skip
def test_terms_are_read_off_the_words_of_a_licence(licence, terms):
    assert terms_of(licence) == terms


SENTENCE = "the quick brown fox jumps over the lazy dog near a quiet river bank while rain falls on the old barn"


def texts_of(catalogue):
    return [(f.check, f.severity, int(f.where.rsplit(":", 1)[1])) for f in text_findings(catalogue, lambda _: ())]


def test_shingles_ignore_case_and_punctuation_and_short_texts_count_whole():
    assert len(shingles(SENTENCE, 13)) == len(SENTENCE.split()) - 12
    assert np.array_equal(shingles("No, effusion!", 13), shingles("no effusion", 13))
    assert shingles("no effusion", 13) != shingles("effusion no", 13)
    assert len(shingles("...", 13)) == 0


def test_a_text_that_is_also_in_the_test_split_is_found_and_a_shared_passage_is_a_warning(tmp_path):
    other = " ".join(f"word{k}" for k in range(60))
    rows = [
        asked(0, "Summarise", SENTENCE),
        asked(1, f"{other} Summarise {SENTENCE.upper()}", "yes"),
        asked(2, "Something else altogether is asked here, and nothing of it is known", "yes"),
        asked(3, "Summarise", SENTENCE, "test"),
    ]
    assert texts_of(catalogue_of(tmp_path, rows)) == [("text_copies", "error", 1), ("text_copies", "warning", 2)]
    known = [asked(8, "Summarise", SENTENCE, "test")]
    assert texts_of(catalogue_of(tmp_path, rows[:1], known)) == [("test_set_texts", "error", 1)]


def test_templates_of_many_held_out_rows_prove_nothing(tmp_path):
    held = [asked(100 + k, SENTENCE, f"answer {k}", "test") for k in range(12)]
    rows = [asked(0, SENTENCE, "another answer of this row")]
    assert texts_of(catalogue_of(tmp_path, rows + held[:9])) != []
    assert texts_of(catalogue_of(tmp_path, rows + held)) == []


def test_questions_about_visuals_are_compared_about_the_same_visual_only(tmp_path):
    def about(number, split, path, answer="yes", question="Is there a nodule? Answer yes or no."):
        made = asked(number, question, answer, split)
        made["messages"][0]["content"] = [{"type": "image", "path": path}, {"type": "text", "text": question}]
        return made

    rows = [
        about(0, "train", "a.png"), about(1, "train", "b.png"), about(2, "train", "a.png", "no"),
        about(3, "train", "a.png", SENTENCE), about(4, "train", "a.png", question="is there a nodule"),
        about(5, "test", "a.png"), about(6, "test", "a.png", SENTENCE), about(7, "test", "c.png", SENTENCE),
    ]  # fmt: skip
    catalogue = catalogue_of(tmp_path, rows)
    told = text_findings(catalogue, lambda seen: (hash(seen.visuals()[0].path) % 1000,))
    assert [int(f.where.rsplit(":", 1)[1]) for f in told] == [1, 4, 5]


def test_what_an_augmentation_does_to_sides_is_measured():
    kinds = mirroring(["hflip", "zflip", "rot90", "shift", "noise", "brightness"])
    assert kinds["image"] == ("hflip", "rot90")
    assert kinds["volume"] == ("hflip", "zflip", "rot90")
    assert "shift" not in kinds["video"] and "noise" not in kinds["video"]


def test_side_words_clash_with_mirroring_only_in_training_rows_with_visuals(tmp_path):
    def about(number, split, answer):
        made = asked(number, "Where?", answer, split)
        made["messages"][0]["content"] = [{"type": "image", "path": "a.png"}, {"type": "text", "text": "Where?"}]
        return made

    rows = [about(0, "train", "in the left lung"), about(1, "train", "in the liver"), about(2, "test", "right"),
            asked(3, "Where?", "in the left lung")]  # fmt: skip
    catalogue = catalogue_of(tmp_path, rows)
    assert found(Sides(["hflip"]), catalogue) == [("error", 1)]
    assert found(Sides(["noise", "shift"]), catalogue) == []
    assert found(Sides(), catalogue) == []


def test_augmentations_come_from_names_or_a_file_and_unknown_ones_are_refused(tmp_path):
    assert augmentations_of("hflip, rot90") == ("hflip", "rot90")
    path = tmp_path / "plan.yaml"
    path.write_text("augmentations: [vflip]\n")
    assert augmentations_of(str(path)) == ("vflip",)
    path.write_text("augmentation: [vflip]\n")
    with pytest.raises(BadConfig, match="no list 'augmentations'"):
        augmentations_of(str(path))
    with pytest.raises(BadConfig, match="did you mean 'hflip'"):
        augmentations_of("hflipp")


def test_a_question_that_gives_its_answer_away_is_told_and_one_that_does_not_is_not(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(300):
        kind = int(rng.integers(2))
        question = ("Is there a nodule?", "Is there an effusion?")[kind]
        told = ("no", "yes")[kind] if rng.random() < 0.95 else ("yes", "no")[kind]
        rows.append(asked(number, question, told, patient=f"p{number % 60}", topic="given away"))
        rows.append(
            asked(1000 + number, question, str(rng.choice(["yes", "no"])), patient=f"p{number % 60}", topic="fair")
        )
    check = Shortcuts()
    catalogue = catalogue_of(tmp_path, rows)
    assert [severity for severity, _ in found(check, catalogue)] == ["warning"]
    away, fair = check.table()
    assert (away.topic, fair.topic) == ("given away", "fair")
    assert away.accuracy > 0.9 and away.majority < 0.65 and away.low > 0.25
    assert fair.low <= 0 <= fair.high or abs(fair.lift) < 0.06
    assert away.patients == 60 and away.rows == 300


def test_questions_of_unknown_topic_are_grouped_by_the_answer_they_ask_for(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(200):
        form, choices = (("yes or no", ["yes", "no"]), ("left or right", ["left", "right"]))[number % 2]
        question = f"Is it {rng.integers(5)}? Answer {form}."
        rows.append(asked(number, question, str(rng.choice(choices)), patient=f"p{number % 50}", topic="other"))
        rows.append(
            asked(500 + number, question[:-1], str(rng.choice(choices)), patient=f"p{number % 50}", topic="other")
        )
    check = Shortcuts()
    assert found(check, catalogue_of(tmp_path, rows)) == [], "what kind of answer is wanted is no shortcut"
    groups = {one.topic: one.lift for one in check.table()}
    assert set(groups) == {"answer yes or no", "answer left or right", "other"} and groups["other"] > 0.1


def test_few_rows_or_few_patients_tell_nothing(tmp_path):
    rows = [asked(n, f"Is it {n % 2}?", str(n % 2), patient=f"p{n % 5}") for n in range(400)]
    check = Shortcuts()
    assert found(check, catalogue_of(tmp_path, rows)) == []
    assert check.table() == []


def test_answers_that_differ_between_splits_are_a_warning(tmp_path):
    rows = [asked(n, "Q", "yes" if n % 10 else "no", "train") for n in range(100)]
    rows += [asked(200 + n, "Q", "yes" if n % 2 else "no", "test") for n in range(100)]
    assert [s for s, _ in found(Answers(), catalogue_of(tmp_path, rows))] == ["warning"]
    same = [asked(n, "Q", "yes" if n % 3 else "no", ("train", "test")[n // 100]) for n in range(200)]
    alone = asked(300, "Q", "yes")
    del alone["messages"][0]
    check = Answers()
    assert found(check, catalogue_of(tmp_path, [*same, alone])) == []
    (spread,) = check.table()
    assert spread.counts["test"] == {"yes": 67, "no": 33} and spread.totals == {"train": 101, "test": 100}


def test_answers_with_signs_of_formulas_are_drawn_as_they_are():
    counts = {"train": {r"$\frac{1}$": 30, "<b>&": 10}, "test": {"$5": 20}}
    svg = spread_bars(Spread(source="a<b", topic="cost", counts=counts, totals={"train": 50, "test": 20}))
    assert r"$\frac{1}$" in svg and "&lt;b&gt;&amp;" in svg and "<b>" not in svg


def test_identifiers_in_texts_are_told_by_kind_and_place_and_never_quoted(tmp_path):
    rows = [
        asked(0, "Report", "Patient: Mary Jones, MRN 48213377, has a 3.2 cm nodule."),
        asked(1, "Report", "There is a 3.2 cm nodule in the left upper lobe, segment 2."),
    ]
    catalogue = catalogue_of(tmp_path, rows)
    with Journal(tmp_path / "texts.jsonl") as journal:
        (finding,) = private_text_findings(catalogue, journal)
        assert len(journal) == 1
        (again,) = private_text_findings(catalogue, journal)
        assert again == finding and len(journal) == 1
    told = json.dumps(finding.to_dict()) + (tmp_path / "texts.jsonl").read_text()
    assert finding.where.endswith("rows.jsonl:1") and finding.severity == "error"
    assert "Jones" not in told and "48213377" not in told
    assert "name in text 2, characters" in told


def test_texts_are_searched_some_hundred_rows_at_a_time_and_a_date_alone_is_a_warning(tmp_path):
    rows = [asked(n, "Report", "No change.") for n in range(1200)]
    rows[1100] = asked(1100, "Report", "Compared with the film of March 3, 2019 there is no change.")
    with Journal(tmp_path / "texts.jsonl") as journal:
        told = list(private_text_findings(catalogue_of(tmp_path, rows), journal))
        assert len(journal) == 3
    assert [(f.severity, f.where.rsplit(":", 1)[1]) for f in told] == [("warning", "1101")]


def test_tags_of_the_patient_are_errors_and_others_warnings():
    assert judged_tags(("InstitutionName", "PatientName"))[0] == "error"
    assert judged_tags(("InstitutionName", "StudyDate")) == (
        "warning", "DICOM attributes that identify: InstitutionName, StudyDate"
    )  # fmt: skip


def test_a_side_mark_in_the_pixels_is_nothing_and_a_name_is_an_error():
    assert judged_pixels(("word",)) is None
    assert judged_pixels(("word",) * 6) == ("warning", "6 words in the pixels")
    assert judged_pixels(("name", "word"))[0] == "error"


def test_a_folder_without_manifests_and_a_missing_path_are_refused(tmp_path):
    (tmp_path / "quarantine.jsonl").write_text("{}\n")
    with pytest.raises(BadSample, match="no manifest"):
        manifests_in([tmp_path])
    with pytest.raises(BadSample, match="no such file"):
        manifests_in([tmp_path / "nothing.jsonl"])
    (tmp_path / "train.jsonl").touch()
    assert manifests_in([tmp_path]) == [tmp_path / "train.jsonl"]
