"""Groups, patients, bounds and controls of metrics.json, by hand and planted."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from score_rows import score_row

from medvlm.data_recipes.sample import Question, Sample, Turn
from medvlm.eval.aggregate import aggregate
from medvlm.eval.patient_level import patient_level
from medvlm.eval.plan import Item
from medvlm.eval.published import gap_to_published
from medvlm.eval.strata import age_band, strata_of
from medvlm.eval.subgroups import subgroups
from medvlm.eval.table import clusters_of, look_up, table_of


def planted(accuracy: dict[str, float], n: int, seed: int = 0, **more) -> list[dict]:
    """``n`` questions of each group, four a patient, right as often as ``accuracy`` says."""
    generator = np.random.default_rng(seed)
    return [
        score_row(
            f"{name}{place}", f"{name}{place // 4}", bool(generator.random() < rate), strata={"sex": name}, **more
        )
        for name, rate in accuracy.items()
        for place in range(n)
    ]


def test_a_planted_gap_is_found_and_small_groups_are_named_only():
    rows = planted({"male": 0.9, "female": 0.6}, 200) + planted({"diverse": 0.1}, 12)
    rows += [score_row(f"n{place}", f"n{place}", True) for place in range(5)]
    found = subgroups(rows, clusters_of(rows, "patient"))
    (stratum,) = found["strata"]
    assert (stratum["stratum"], stratum["worst"], stratum["small"], stratum["unknown"]) == (
        "sex",
        "female",
        {"diverse": 12},
        5,
    )
    shares = {
        name: np.mean([r["correct"] for r in rows if r["strata"].get("sex") == name]) for name in ("male", "female")
    }
    rest = np.mean([r["correct"] for r in rows if r["strata"].get("sex") in ("male", "diverse")])
    female, male = stratum["groups"]
    assert (female["group"], female["n"], female["n_clusters"], female["rest_n"]) == ("female", 200, 50, 212)
    assert male["value"] == pytest.approx(shares["male"]) and female["value"] == pytest.approx(shares["female"])
    assert female["gap"] == pytest.approx(shares["female"] - rest)
    assert female["gap_low"] < female["gap"] < female["gap_high"] < 0 < male["gap_low"]
    assert (found["comparisons"], found["excluding_zero"], found["expected_by_chance"]) == (2, 2, 0.1)


def test_no_gap_is_rarely_found_where_there_is_none():
    outside = comparisons = 0
    for seed in range(60):
        found = subgroups(rows := planted(dict.fromkeys("abc", 0.7), 120, seed=seed), clusters_of(rows, "patient"))
        outside, comparisons = outside + found["excluding_zero"], comparisons + found["comparisons"]
    assert comparisons == 180 and 1 <= outside <= 20


def test_thirty_questions_are_enough_and_nine_patients_are_not():
    rows = planted({"a": 0.5, "b": 0.5}, 30) + planted({"c": 0.5}, 29)
    (stratum,) = subgroups(rows, clusters_of(rows, "patient"))["strata"]
    assert [group["group"] for group in stratum["groups"]] == ["a", "b"] and stratum["small"] == {"c": 29}
    assert all(group["gap"] is not None and group["gap_low"] is None for group in stratum["groups"])
    assert stratum["groups"][0]["method"] == "cluster_bootstrap_few"


def test_the_hardest_and_easiest_cells():
    rows = planted({"a": 0.95, "b": 0.5}, 80) + planted({"a": 0.7, "b": 0.1}, 80, topic="side", seed=1)
    for place, row in enumerate(rows):
        row["sample_id"], row["patient"] = f"s{place}", f"p{place // 4}"
    found = {
        (one["which"], one["topic"], one["group"]) for one in subgroups(rows, clusters_of(rows, "patient"))["extremes"]
    }
    assert found == {
        ("hardest", "side", "b"), ("hardest", "presence", "b"), ("easiest", "presence", "a"), ("easiest", "side", "a"),
    }  # fmt: skip


def test_patients_by_hand():
    answers = {"p": [1, 1, 1, 0], "q": [1, 0], "r": [1], "s": [0, 0, 0], "t": [1, 1]}
    rows = [score_row(f"{name}{n}", name, bool(one)) for name, some in answers.items() for n, one in enumerate(some)]
    found = patient_level(rows, clusters_of(rows, "patient"))
    assert found is not None
    assert found["n"] == 5 and found["questions"] == {"least": 1, "median": 2.0, "most": 4}
    assert found["all_right"]["value"] == 2 / 5 and found["all_right"]["method"] == "wilson"
    assert found["majority_right"]["value"] == 3 / 5  # half of two is no majority
    mean = found["mean"]["closed_accuracy"]
    assert mean["value"] == pytest.approx(np.mean([0.75, 0.5, 1, 0, 1])) and mean["over_questions"] == pytest.approx(
        7 / 12
    )


def test_bounds_by_hand():
    rules = ["exact", "exact", "yes_no", "unparsed", "answer_marker", "refused"]
    rights = [True, False, True, False, True, False]
    rows = [
        score_row(f"q{n}", f"p{n}", right, rule=rule, unparsed=rule in ("unparsed", "refused"))
        for n, (rule, right) in enumerate(zip(rules, rights, strict=True))
    ]
    row = look_up(
        [{"condition": "image", **r} for r in table_of(rows, clusters_of(rows, "patient"))],
        "closed_accuracy",
        "image",
        "all",
    )
    assert row is not None
    assert (row["strict"], row["value"], row["upper"]) == (pytest.approx(2 / 6), 3 / 6, pytest.approx(5 / 6))


FIGURE = {"metric": "closed_accuracy", "value": 0.7, "model": "M", "source": "S", "how": "other prompt"}


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ({"task": "t@1", "differs": "10 of 20", "published": [FIGURE]}, "not the published split"),
        ({"task": "t@1", "limit": 5, "published": [FIGURE]}, "only 5 questions"),
        ({"task": "t@1", "unanswered": 3, "published": [FIGURE]}, "3 requests"),
        ({"task": "t@1", "published": []}, "no figures"),
        ({"task": None}, "of no task"),
    ],
)
def test_a_part_of_a_task_has_no_gap(run, why):
    found = gap_to_published(run, [])
    assert not found["comparable"] and why in found["why_not"] and found["figures"] == []


def test_the_gap_to_a_published_figure():
    row = {"metric": "closed_accuracy", "condition": "image", "dimension": "all", "topic": "all"}
    table = [row | {"value": 0.62, "low": 0.58, "high": 0.66}]
    run = {"task": "t@1", "differs": "", "published": [FIGURE, FIGURE | {"value": 0.6}, FIGURE | {"metric": "bleu_4"}]}
    ours, inside, unknown = gap_to_published(run, table)["figures"]
    assert ours["difference"] == pytest.approx(-0.08) and ours["contains"] is False and ours["how"] == "other prompt"
    assert inside["contains"] is True and unknown["ours"] is None and unknown["difference"] is None


@pytest.mark.parametrize(
    ("age", "band"),
    [("45", "40-59"), ("045Y", "40-59"), ("006M", "0-17"), ("63.0", "60-79"), ("17.9", "0-17"), ("18", "18-39"),
     ("80", "80 and over"), ("45 years", "40-59"), ("300", None), ("adult", None), ("60-69", None)],
)  # fmt: skip
def test_age_bands(age, band):
    assert age_band(age) == band


def test_strata_as_recipes_write_them():
    def strata(**metadata):
        sample = Sample(
            sample_id="s", patient_id="p", study_id="t", source="made", licence="CC0-1.0", split="test",
            turns=(Turn(role="user", content=("?",)),), metadata=metadata,
            question=Question(kind="open", answers=("a",)),
        )  # fmt: skip
        return strata_of(Item(sample=sample, manifest=Path("m.jsonl")))

    assert strata(modality="unknown", age="unknown", organ="", views=[]) == {"source": "made"}
    assert strata(sex="M", age="45", location="chest", manufacturer="ACME") == {
        "source": "made", "sex": "male", "age_band": "40-59", "body_part": "chest", "scanner": "ACME",
    }  # fmt: skip
    assert strata(location="left", body_part="lung")["body_part"] == "lung"
    assert strata(shortcut=True)["shortcut"] == "present" and strata(shortcut=False)["shortcut"] == "absent"
    assert strata(views=["lateral", "PA"])["view"] == "PA and lateral"
    assert strata(age_band="60-69")["age_band"] == "60-69"


def with_controls(n: int, control_right: float) -> list[dict]:
    """The image is read rightly three times of four; one to three requests of a sample without it."""
    generator = np.random.default_rng(7)
    rows = []
    for place in range(n):
        name, patient = f"q{place}", f"p{place // 2}"
        rows.append(score_row(name, patient, bool(generator.random() < 0.75)))
        for request in range(1 + place % 3):
            right = bool(generator.random() < control_right)
            rows.append(score_row(name, patient, right, condition="no_image", request=request))
        rows.append(score_row(name, patient, bool(generator.random() < control_right), condition="swapped"))
    return sorted(rows, key=lambda row: row["condition"])


def test_looking_is_a_paired_test_over_the_same_questions(tmp_path):
    metrics = aggregate(with_controls(120, 0.5), tmp_path, not_asked={}, run={})
    assert metrics["looks_at_the_image"] == {"2d": True, "3d": None, "video": None}
    blind = aggregate(with_controls(120, 0.75), tmp_path, not_asked={}, run={})
    assert blind["looks_at_the_image"]["2d"] is False
    row = next(
        one for one in metrics["against_controls"] if one["condition"] == "no_image" and one["dimension"] == "2d"
    )
    # a sample that was asked three times counts once, with the mean of its answers
    rows = with_controls(120, 0.5)

    def mean_of(condition: str) -> float:
        answers = {r["sample_id"]: [] for r in rows}
        for r in rows:
            if r["condition"] == condition:
                answers[r["sample_id"]].append(r["correct"])
        return float(np.mean([np.mean(some) for some in answers.values()]))

    assert (row["n"], row["n_clusters"], row["test"]) == (120, 60, "randomisation")
    assert (
        row["difference"] == pytest.approx(mean_of("image") - mean_of("no_image"))
        and row["low"] > 0
        and row["p"] <= row["p_holm"]
    )


def test_a_control_without_its_partner_says_nothing(tmp_path):
    rows = [row for row in with_controls(60, 0.2) if row["condition"] != "swapped"]
    assert aggregate(rows, tmp_path, not_asked={}, run={})["looks_at_the_image"]["2d"] is None


def plain(value) -> bool:
    if type(value) is dict:
        return all(type(key) is str and plain(one) for key, one in value.items())
    return all(map(plain, value)) if type(value) is list else value is None or type(value) in (str, int, float, bool)


def test_the_same_bytes_of_plain_types(tmp_path):
    rows = with_controls(90, 0.5) + planted({"male": 0.9, "female": 0.6}, 60)
    for place, row in enumerate(rows):
        row["confidence"] = round(0.5 + (place % 50) / 100, 2)
    rows += [
        score_row(
            f"b{n}", f"p{n % 9}", True, kind="box", topic="box", iou=(n % 3) / 3, centre_mm=n / 7 if n % 4 else None
        )
        for n in range(40)
    ]
    metrics = aggregate(rows, tmp_path, not_asked={}, run={"task": None})
    first = (tmp_path / "metrics.json").read_bytes()
    assert plain(metrics) and json.loads(first) == metrics
    aggregate(list(rows), tmp_path, not_asked={}, run={"task": None})
    assert (tmp_path / "metrics.json").read_bytes() == first
    assert set(metrics) == {
        "run", "headline", "looks_at_the_image", "against_controls", "table", "bounds", "gap_to_published", "subgroups",
        "calibration", "abstention", "patient_level", "counts", "not_asked", "signatures",
    }  # fmt: skip
