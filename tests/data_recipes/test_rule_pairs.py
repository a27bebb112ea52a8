"""Rules make one thing wrong; a part of many samples keeps every source and scan."""

from __future__ import annotations

import pytest

from medvlm.data_recipes.rule_pairs import negation_flip, rule_pairs, side_flip, yes_no_flip
from medvlm.data_recipes.sample import Sample, Turn, VisualRef
from medvlm.data_recipes.stratify import in_turn, spread


@pytest.mark.parametrize(
    ("rule", "answer", "wrong"),
    [
        (yes_no_flip, "Yes", "No"),
        (yes_no_flip, "no.", "yes."),
        (yes_no_flip, "no nodule", None),
        (side_flip, "Left lower lobe, left hilum", "Right lower lobe, right hilum"),
        (side_flip, "left and right", None),
        (side_flip, "The heart is all right", None),
        (negation_flip, "There is a nodule. No mass.", "There is no nodule. No mass."),
        (negation_flip, "Clear lungs. No effusion.", "Clear lungs. There is effusion."),
        (negation_flip, "There are no nodules.", "There are nodules."),
        (negation_flip, "The heart is not enlarged.", "The heart is enlarged."),
        (negation_flip, "A drain is seen.", "A drain is not seen."),
        (negation_flip, "Pneumonia", None),
    ],
)
def test_rules(rule, answer, wrong) -> None:
    assert rule(answer) == wrong


def a_sample(name: str, source: str = "a", answer: str = "yes", scan: str | None = None) -> Sample:
    shown = (VisualRef(kind="image", path=scan),) if scan else ()
    return Sample(
        sample_id=name, patient_id=name, study_id=name, source=source, licence="CC0-1.0", split="train",
        turns=(Turn(role="user", content=(*shown, "Is it?")), Turn(role="assistant", content=(answer,))),
        metadata={"topic": answer},
    )  # fmt: skip


def test_a_pair_differs_only_in_its_ending() -> None:
    (pair,) = rule_pairs(a_sample("s", answer="in the left lung", scan="x.png"))
    assert pair.preference is not None and pair.preference.made_by == "side_flip"
    assert [side[-1].text for side in pair.sides()] == ["in the left lung", "in the right lung"]
    assert pair.sides()[0][:-1] == pair.sides()[1][:-1] and pair.visuals()[0].path == "x.png"
    assert not list(rule_pairs(pair)) and not list(rule_pairs(a_sample("t", answer="CT")))


def test_a_small_source_is_not_crowded_out() -> None:
    samples = [a_sample(f"a{i}", "large", scan=f"{i}.png") for i in range(50)] + [a_sample("b", "small")]
    assert {sample.source for sample in spread(samples, 4)} == {"large", "small"}
    assert spread(samples, 20) == spread(samples[::-1], 20)


def test_every_scan_comes_before_any_comes_twice() -> None:
    samples = [a_sample(f"{scan}{i}", scan=scan) for scan in "xyz" for i in range(9)]
    assert sorted(s.visuals()[0].path for s in spread(samples, 3)) == ["x", "y", "z"]


def test_topics_take_turns() -> None:
    samples = [a_sample(f"{i}", answer=("yes", "no")[i == 7], scan=f"{i}") for i in range(30)]
    assert {s.turns[-1].text for s in spread(samples, 2)} == {"yes", "no"}


def test_in_turn() -> None:
    assert in_turn([[1, 2, 3], [], [4]]) == [1, 4, 2, 3] and in_turn([]) == []
