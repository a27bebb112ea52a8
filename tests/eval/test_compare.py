"""Two runs: the tests agree with scipy and by hand, and what is not the same question is not compared."""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evaluation_fixtures import a_sample

from medvlm.data_recipes.sample import Question, Sample
from medvlm.eval.compare import compare, main
from medvlm.eval.intervals import micro_f1
from medvlm.eval.multiple_tests import holm
from medvlm.eval.paired import compare_counts, mcnemar
from medvlm.eval.plan import Item, make_plan
from medvlm.eval.rows import read_rows, write_json, write_rows
from medvlm.eval.run_folder import RESPONSES, claim, write_plan
from medvlm.eval.stages import aggregate_stage, extract_stage, score_stage
from medvlm.eval.task import ids_sha256

YES = Question(kind="closed", answers=("yes",), choices=("yes", "no"), topic="presence")
SIZE = Question(kind="open", answers=("25 mm",), topic="size")


def samples(patients: int, closed: int = 1, open_ones: int = 0) -> list[Sample]:
    asked = [*((f"c{n}", "Is there a nodule?", YES) for n in range(closed))]
    asked += [*((f"o{n}", "How large?", SIZE) for n in range(open_ones))]
    return [a_sample(p, "text", name, text, question, False) for p in range(patients) for name, text, question in asked]


def a_run(out: Path, asked: list[Sample], answers: Mapping[str, str], **about) -> Path:
    """A run folder in which ``answers`` were written; a sample without one was not answered."""
    plan = make_plan([Item(sample=sample, manifest=out / "m.jsonl") for sample in asked], conditions=("image",))
    run = {
        "model": out.name, "task": None, "fingerprint": None, "style": "plain", "conditions": ["image"], "seed": 0,
        "box_form": "box", "cluster": "patient", "not_asked": plan.not_asked, "limit": None, "versions": {},
        "ids_sha256": ids_sha256([sample.sample_id for sample in asked]),
    }  # fmt: skip
    claim(out, run | about)
    write_plan(out, plan)
    written = [(ask, answers[ask.item.sample.sample_id]) for ask in plan.asks if ask.item.sample.sample_id in answers]
    rows = [
        {"request_id": ask.request_id, "sample_id": ask.item.sample.sample_id, "patient_id": "-", "condition": "image",
         "text": text, "finish_reason": "stop"}
        for ask, text in written
    ]  # fmt: skip
    write_rows(out / RESPONSES.format(rank=0), rows)
    extract_stage(out)
    score_stage(out)
    aggregate_stage(out)
    return out


def answers_of(asked: list[Sample], accuracy: float, seed: int) -> dict[str, str]:
    generator = np.random.default_rng(seed)
    wrong = {"closed": "no", "open": "about 40 mm"}
    return {
        sample.sample_id: sample.question.answers[0] if generator.random() < accuracy else wrong[sample.question.kind]
        for sample in asked
        if sample.question is not None
    }


def test_holm_by_published_examples():
    # the worked example of the article on the Holm-Bonferroni method in Wikipedia
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") of R
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([]) == [] and holm([0.7, 0.9]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.2, 1.2])


@pytest.mark.parametrize(("one", "other"), [(3, 10), (0, 5), (7, 7), (1, 0), (0, 0), (60, 100), (10_000, 10_300)])
def test_mcnemar_is_the_binomial_test(one, other):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(one, one + other, 0.5).pvalue if one + other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected, rel=1e-8)
    assert mcnemar(other, one) == mcnemar(one, other)


def pairs(a: list[float], b: list[float]) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([np.array(a, float), np.ones(len(a))], 1), np.stack([np.array(b, float), np.ones(len(b))], 1)


def test_swapping_all_clusters_is_mcnemar_when_each_was_asked_once():
    a, b = pairs([1] * 20 + [1, 1, 1] + [0] * 9, [1] * 20 + [0, 0, 0] + [1] * 9)
    patients = np.arange(32)
    exact = compare_counts(a, b, patients, share=False)  # not told that marks are right or wrong
    binary = compare_counts(a, b, patients, share=True)
    assert (exact.test, binary.test) == ("exact_randomisation", "mcnemar")
    assert exact.p == pytest.approx(binary.p, rel=1e-9) and binary.p == pytest.approx(mcnemar(3, 9))
    assert (binary.only_a, binary.only_b, binary.difference) == (3, 9, pytest.approx(6 / 32))


def test_random_swaps_come_near_all_swaps():
    generator = np.random.default_rng(3)
    a, b = generator.integers(0, 4, size=(12, 3)).astype(float), generator.integers(0, 4, size=(12, 3)).astype(float)
    every = compare_counts(a, b, np.arange(12), micro_f1, draws=4096)
    some = compare_counts(a, b, np.arange(12), micro_f1, draws=4095)
    assert (every.test, some.test) == ("exact_randomisation", "randomisation")
    assert some.p == pytest.approx(every.p, abs=0.03)
    with pytest.raises(ValueError, match="cannot be paired"):
        compare_counts(a, b[:5], np.arange(12))


def test_nothing_differs():
    a, b = pairs([1, 0] * 30, [1, 0] * 30)
    same = compare_counts(a, b, np.repeat(np.arange(20), 3), share=True)
    assert (same.difference, same.p, same.detectable) == (0.0, 1.0, None)
    assert same.high is not None and 0.1 < same.high < 0.2 and same.low == -same.high
    alone = compare_counts(a, b, np.zeros(60, int), share=True)
    assert (alone.test, alone.p, alone.low) == ("none", None, None)


def test_the_detectable_difference_is_found_four_times_of_five():
    generator = np.random.default_rng(0)
    n, gained, lost = 400, 0.18, 0.10  # 28 % discordant: detectable is about 2.8 * sqrt(0.28 / 400)
    found, detectable = 0, []
    for _ in range(300):
        draw = generator.random(n)
        a, b = pairs(list(draw < lost), list((draw >= lost) & (draw < lost + gained)))
        one = compare_counts(a, b, np.arange(n), share=True, resamples=400, draws=99)
        found, detectable = found + (one.p < 0.05), [*detectable, one.detectable]
    assert np.mean(detectable) == pytest.approx(2.8016 * math.sqrt((0.28 - 0.08**2) / n), rel=0.05)
    assert np.mean(detectable) == pytest.approx(0.0733, abs=0.004)
    assert 0.78 < found / 300 < 0.92  # the true difference, 0.08, is a little above it


def test_two_runs(tmp_path):
    asked = samples(60, closed=3, open_ones=1)
    a = a_run(tmp_path / "weak", asked, answers_of(asked, 0.5, 1))
    b = a_run(tmp_path / "strong", asked, answers_of(asked, 0.8, 2))
    found = compare(a, b, tmp_path / "out")
    tests = {row["metric"]: row for row in found["tests"]}
    closed = tests["closed_accuracy"]
    exact = [
        next(
            r["value"]
            for r in json.loads((run / "metrics.json").read_text())["table"]
            if r["metric"] == "closed_accuracy"
        )
        for run in (a, b)
    ]
    assert [closed["a"], closed["b"]] == exact
    assert (closed["n"], closed["n_clusters"], closed["test"], closed["better"]) == (180, 60, "randomisation", "b")
    assert closed["p_mcnemar"] is not None and closed["low"] > 0
    assert tests["open_exact_match"]["test"] == "mcnemar"  # one open question a patient
    assert "majority_accuracy" not in tests and "mean_words" not in tests
    # Holm over all tests of the comparison
    given = [row["p"] for row in found["tests"]]
    assert [row["p_holm"] for row in found["tests"]] == pytest.approx(holm(given)) and len(given) > 3
    text = (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")
    assert "B is better by" in closed["words"] and closed["words"] in text and "| closed_accuracy | 180 | 60 |" in text
    assert json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8")) == found
    before = (tmp_path / "out" / "compare.json").read_bytes()
    compare(a, b, tmp_path / "out")
    assert (tmp_path / "out" / "compare.json").read_bytes() == before
    turned = compare(b, a, tmp_path / "turned")["tests"][0]
    assert turned["better"] == "a" and turned["difference"] == pytest.approx(-found["tests"][0]["difference"])


def test_a_run_against_itself_shows_nothing(tmp_path):
    asked = samples(30, closed=2)
    a = a_run(tmp_path / "a", asked, answers_of(asked, 0.6, 1))
    b = a_run(tmp_path / "b", asked, answers_of(asked, 0.6, 1))
    (row,) = (row for row in compare(a, b, tmp_path / "out")["tests"] if row["metric"] == "closed_accuracy")
    assert (row["difference"], row["p"], row["better"]) == (0.0, 1.0, None)
    assert "no difference was shown" in row["words"]


def test_what_is_not_the_same_is_refused(tmp_path, capsys):
    asked = samples(20, closed=2)
    right = answers_of(asked, 0.7, 1)
    a = a_run(tmp_path / "a", asked, right, task="t@1", fingerprint="f1")

    def refused(out: str, message: str, of: list[Sample] = asked, answers: Mapping[str, str] = right, **about):
        b = a_run(tmp_path / out, of, answers, **({"task": "t@1", "fingerprint": "f1"} | about))
        with pytest.raises(ValueError, match=message):
            compare(a, b, tmp_path / "none")
        return b

    refused("version", "no task in common", task="t@2")
    refused("wording", "fingerprint 'f1' against 'f2'", fingerprint="f2")
    refused("conditions", "conditions image against image, no_image", conditions=["image", "no_image"])
    refused("cluster", "intervals over patient against study", cluster="study")
    fewer = refused("fewer", "4 questions are answered in one of them only", answers=dict(list(right.items())[4:]))
    half = refused("half", "other questions", of=asked[:20])
    no = Question(kind="closed", answers=("no",), choices=("yes", "no"), topic="presence")
    other = [Sample(**{**sample.__dict__, "question": no}) for sample in asked]
    refused("other", "40 questions .* other choices or answers", of=other)
    assert not (tmp_path / "none").exists()
    shared = compare(a, fewer, tmp_path / "shared", intersection=True)
    assert shared["runs"][0]["left_out"] == 4 and shared["tests"][0]["n"] == 36
    assert compare(a, half, tmp_path / "half-out", intersection=True)["tests"][0]["n"] == 20
    assert main([str(a), str(half)]) == 2 and "--intersection" in capsys.readouterr().err
    assert main([str(a), str(half), "--intersection", "--out", str(tmp_path / "compared")]) == 0
    page = (tmp_path / "compared" / "compare.html").read_text(encoding="utf-8")
    assert a.name in page and half.name in page and "http://" not in page and "https://" not in page
    assert (tmp_path / "compared" / "compare.md").exists() and "20 left out" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no run folder"):
        compare(tmp_path / "none-here", a, tmp_path / "none")
    with pytest.raises(ValueError, match="there is no metric accuracyy"):
        compare(a, a, tmp_path / "none", metrics=["accuracyy"])
    with pytest.raises(ValueError, match="nothing can be compared under swapped"):
        compare(a, a, tmp_path / "none", conditions=["swapped"])


def test_folders_of_several_tasks(tmp_path):
    asked = samples(15, closed=2)
    for folder, accuracy in (("one", 0.4), ("two", 0.9)):
        for task in ("x@1", "y@1"):
            a_run(
                tmp_path / folder / task, asked, answers_of(asked, accuracy, len(folder)), task=task, fingerprint=task
            )
    a_run(tmp_path / "two" / "z@1", asked, answers_of(asked, 0.5, 3), task="z@1")
    with pytest.raises(ValueError, match=r"z@1: in .*two only.*--intersection"):
        compare(tmp_path / "one", tmp_path / "two", tmp_path / "out")
    found = compare(
        tmp_path / "one", tmp_path / "two", tmp_path / "out", intersection=True, metrics=["closed_accuracy"]
    )
    assert [row["task"] for row in found["tests"]] == ["x@1", "y@1"] and len(found["only_in_one"]) == 1
    smaller, larger = sorted(row["p"] for row in found["tests"])
    assert sorted(row["p_holm"] for row in found["tests"]) == pytest.approx([2 * smaller, max(larger, 2 * smaller)])


def test_a_metric_that_only_one_run_has_is_named(tmp_path):
    asked = samples(12, closed=1, open_ones=1)
    a, b = (a_run(tmp_path / name, asked, answers_of(asked, 0.5, 1)) for name in ("a", "b"))
    from medvlm.eval.scorers.catalogue import SCORERS

    added = next(one for one in SCORERS if one.added and "open" in one.kinds and one.metrics)
    rows = [row | {"added": [added.name]} if row["kind"] == "open" else row for row in read_rows(a / "scores.jsonl")]
    write_rows(a / "scores.jsonl", rows)
    found = compare(a, b, tmp_path / "out")
    assert any(added.metrics[0].name in one and "one run only" in one for one in found["only_in_one"])
    write_json(a / "run.json", json.loads((a / "run.json").read_text()) | {"style": "cot"})
    assert any("style: cot against plain" in note for note in compare(a, b, tmp_path / "out")["runs"][0]["notes"])
