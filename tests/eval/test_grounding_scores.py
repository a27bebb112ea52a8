"""Box questions through the whole evaluation: read, scored, averaged with what went unread, and shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evaluation_fixtures import visual_of, write_manifest, write_visuals

from medvlm.data_recipes.sample import Question, Sample, Turn
from medvlm.eval.extract import extract
from medvlm.eval.gallery import note, verdict
from medvlm.eval.models import OracleModel, ReplayModel, Response
from medvlm.eval.plan import MAX_NEW_TOKENS
from medvlm.eval.run import Settings, evaluate
from medvlm.eval.scorers.grounding import score_box
from medvlm.eval.stages import rescore_main

FLAT = "<box>(0.100, 0.100, 0.500, 0.500)</box>"
DEEP = "<box>(0.000, 0.000, 0.000, 0.500, 0.500, 0.500)</box>"


def asked(*answers: str, extent: tuple[float, ...] = (), topic: str = "box") -> Question:
    return Question(kind="box", answers=answers, topic=topic, extent_mm=extent)


def test_score_against_values_by_hand():
    question = asked(FLAT, extent=(100.0, 200.0))
    score = score_box(question, "<box>(0.3, 0.3, 0.7, 0.7)</box>")
    assert score.iou == pytest.approx(400 / 2800)
    assert score.centre_mm == pytest.approx((20**2 + 40**2) ** 0.5)
    unread = score_box(question, None)
    assert unread.iou == 0.0 and unread.centre_mm is None  # and never -1
    assert score_box(asked(FLAT), FLAT).iou == 1.0 and score_box(asked(FLAT), FLAT).centre_mm is None


def test_any_of_several_references_is_right():
    question = asked(FLAT, "<box>(0.600, 0.600, 0.900, 0.900)</box>", extent=(10.0, 10.0))
    score = score_box(question, "<box>(0.6, 0.6, 0.9, 0.9)</box>")
    assert score.iou == 1.0 and score.centre_mm == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("text", "value", "rule"),
    [
        (f"It is at {FLAT}.", FLAT, "box"),
        (f"<think>maybe <box>(0, 0, 1, 1)</box></think>{FLAT}", FLAT, "box"),
        ("<box>(10, 20, 50.04, 100) mm</box>", "<box>(10, 20, 50.04, 100) mm</box>", "box"),
        (f"<think>{FLAT}", None, "thinking_cut_off"),
        ("", None, "empty"),
        ("left", None, "no_box"),
        (f"{FLAT} or <box>(0, 0, 1, 1)</box>", None, "several_boxes"),
        ("<box>(0.5, 0.1, 0.1, 0.5)</box>", None, "reversed_corners"),
        ("<box>(0.1, 0.1, 0.5)</box>", None, "wrong_count"),
        (DEEP, None, "wrong_count"),
        ("<box>(0.1, 0.1, 0.5, 5)</box>", None, "out_of_range"),
        ("<|box_start|>(100,100),(500,500)<|box_end|>", None, "no_box"),
    ],
)
def test_extraction_names_why_there_is_no_box(text, value, rule):
    found = extract(asked(FLAT, extent=(100.0, 200.0)), text)
    assert (found.value, found.rule) == (value, rule)


def test_extraction_reads_other_forms_when_told():
    qwen = extract(asked(FLAT), "<|box_start|>(100,100),(500,500)<|box_end|>", box_form="thousandths")
    assert score_box(asked(FLAT), qwen.value).iou == pytest.approx(1.0)
    m3d = extract(asked(DEEP), "[0.0, 0.0, 0.0, 0.5, 0.5, 0.5]", box_form="m3d")
    assert score_box(asked(DEEP), m3d.value).iou == pytest.approx(1.0)


def box_samples(folder: Path) -> Path:
    """Eight patients; every image asks for a flat box, every volume for one in fractions and one in millimetres."""
    write_visuals(folder, 8)
    samples = []
    volume = (64.0, 64.0, 64.0)  # 16 x 4, 16 x 4, 8 x 8 mm
    for patient in range(8):
        for kind, name, question in (
            ("image", "box", asked(FLAT)),
            ("volume", "box", asked(DEEP, extent=volume)),
            (
                "volume",
                "box_mm",
                asked("<box>(0.0, 0.0, 0.0, 32.0, 32.0, 32.0) mm</box>", extent=volume, topic="box_mm"),
            ),
        ):
            samples.append(
                Sample(
                    sample_id=f"{patient}-{kind}-{name}",
                    patient_id=f"p{patient}",
                    study_id=f"s{patient}",
                    source="fixture",
                    licence="CC0-1.0",
                    split="test",
                    metadata={"modality": kind},
                    turns=(Turn(role="user", content=(visual_of(patient, kind), "Where is it?")),),
                    question=question,
                )
            )
    return write_manifest(folder / "boxes.jsonl", samples)


def test_a_model_that_knows_scores_one(tmp_path):
    manifest = box_samples(tmp_path)
    metrics = evaluate(OracleModel(), [manifest], tmp_path / "run", Settings(conditions=("image",)))
    found = {(r["metric"], r["dimension"], r["topic"]): r for r in metrics["table"]}
    for dimension in ("2d", "3d"):
        assert found["box_iou", dimension, "all"]["value"] == 1.0
        assert found["box_accuracy_50", dimension, "all"]["value"] == 1.0
    assert found["box_centre_mm", "3d", "box_mm"]["value"] == pytest.approx(0.0, abs=1e-9)
    assert ("box_centre_mm", "2d", "all") not in found  # the pictures state no spacing
    assert metrics["headline"]["box_iou_3d"] == 1.0 and metrics["headline"]["box_iou_video"] is None


class Halves:
    """Right for even patients, a box half as deep for odd ones, and nothing for patient 7."""

    name = "halves"

    def answer(self, requests):
        return [Response(text=self.text(request.sample_id)) for request in requests]

    @staticmethod
    def text(sample_id: str) -> str:
        patient, kind, _ = sample_id.split("-")
        if patient == "7":
            return "I cannot tell."
        end = "0.5" if int(patient) % 2 == 0 else "0.1"
        return FLAT if kind == "image" else f"<box>(0, 0, 0, 0.5, 0.5, {end})</box>"


def test_unread_boxes_count_as_zero_and_are_counted(tmp_path):
    manifest = box_samples(tmp_path)
    metrics = evaluate(Halves(), [manifest], tmp_path / "run", Settings(conditions=("image", "no_image")))
    found = {(r["metric"], r["condition"], r["dimension"], r["topic"]): r for r in metrics["table"]}
    row = found["box_iou", "image", "3d", "box"]
    assert row["value"] == pytest.approx((4 * 1.0 + 3 * 0.2 + 0.0) / 8) and (row["n"], row["unparsed"]) == (8, 1)
    assert row["low"] < row["value"] < row["high"] and row["method"] == "cluster_bootstrap_few"
    assert (
        found["box_accuracy_25", "image", "3d", "box"]["value"]
        == found["box_accuracy_50", "image", "3d", "box"]["value"]
    )
    assert found["box_accuracy_50", "image", "3d", "box"]["value"] == pytest.approx(0.5)
    assert found["box_accuracy_50", "image", "2d", "box"]["method"] == "wilson"
    centre = found["box_centre_mm", "image", "3d", "box"]
    assert centre["value"] == pytest.approx((4 * 0.0 + 3 * 12.8) / 7) and (centre["n"], centre["unparsed"]) == (7, 0)
    assert ("box_iou", "no_image", "3d", "all") in found  # asked under the controls too
    assert metrics["counts"]["extraction_rules"] == {"box": 42, "no_box": 6}
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Boxes: mean IoU" in page and " mm" in page and "names no box" in page
    scores = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    by_name = {r["sample_id"]: r for r in scores if r["condition"] == "image"}
    assert verdict(by_name["0-volume-box"]) == "right" and verdict(by_name["1-volume-box"]) == "partly"
    assert note(by_name["1-volume-box"]) == "IoU 0.20, centres 12.8 mm apart"
    assert verdict(by_name["7-volume-box"]) == "unparsed"


def test_a_form_that_cannot_hold_the_boxes_is_refused_before_asking(tmp_path):
    manifest = box_samples(tmp_path)
    with pytest.raises(ValueError, match=r"'thousandths' has no boxes of 3 axes; use form='box'"):
        evaluate(Halves(), [manifest], tmp_path / "run", Settings(box_form="thousandths"))
    assert not (tmp_path / "run").exists()


def test_rescoring_reads_another_form(tmp_path):
    manifest = box_samples(tmp_path)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    write = tmp_path / "flat.jsonl"
    write.write_text("".join(json.dumps(row) + "\n" for row in rows if "image" in row["sample_id"]))

    class Qwen:
        name = "qwen"

        def answer(self, requests):
            return [Response(text='[{"bbox_2d": [100, 100, 500, 500], "label": "nodule"}]') for _ in requests]

    out = tmp_path / "run"
    first = evaluate(Qwen(), [write], out, Settings(conditions=("image",)))
    assert first["headline"]["box_iou_2d"] == 0.0 and first["counts"]["extraction_rules"] == {"no_box": 8}
    assert rescore_main([str(out), "--box-form", "thousandths"]) == 0
    assert json.loads((out / "metrics.json").read_text())["headline"]["box_iou_2d"] == 1.0
    assert ReplayModel(out / "responses.rank0.jsonl").name  # the answers themselves were kept
    assert MAX_NEW_TOKENS["box"] >= 64
