"""A model's own answers become pairs by their scores; a run that is stopped loses the sample at work."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from conftest import an_image, tiny_model

from medvlm.data_recipes.manifest import read_manifest, verify, write_manifest
from medvlm.data_recipes.pairs.build import PairSettings
from medvlm.data_recipes.pairs.case import case_of
from medvlm.data_recipes.pairs.visual_files import write_visual
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import Sample, Turn
from medvlm.eval.answer_scores import Sampling, choose, question_of, score
from medvlm.eval.make_pairs import main
from medvlm.eval.models import Response
from medvlm.eval.sampled_pairs import sampled_pairs
from medvlm.model import save_checkpoint

REPORT = "There is a left pleural effusion. No pneumothorax. The heart is enlarged."


def a_row(name: str, answer: str, prompt: str, refs=(), split: str = "train") -> Sample:
    return Sample(
        sample_id=name, patient_id=name, study_id=name, source="a", licence="CC0-1.0", split=split,
        turns=(Turn(role="user", content=(*refs, prompt)), Turn(role="assistant", content=(answer,))),
        metadata={"modality": "CR"},
    )  # fmt: skip


@dataclass
class Speaker:
    """Answers from a list, turn about, and draws a number as a sampling model would."""

    answers: tuple[str, ...]
    name: str = "speaker"
    asked: list[str] = field(default_factory=list)
    drawn: list[float] = field(default_factory=list)
    stop_at: int | None = None

    def read(self, ref, root):
        return read(ref, root)

    def write(self, requests, **decoding):
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        self.asked.append(requests[0].sample_id)
        self.drawn.append(float(torch.rand(1)))
        assert decoding["do_sample"] and decoding["temperature"] == 1.0
        assert len({request.request_id for request in requests}) == len(requests)
        return [Response(text=self.answers[n % len(self.answers)]) for n in range(len(requests))]


@pytest.mark.parametrize(
    ("answer", "prompt", "kind"),
    [
        ("Yes.", "Is it?", "closed"),
        ("B", "Which?\nA. left\nB. right\nAnswer with the letter.", "choice"),
        ("<box>(0.1, 0.1, 0.2, 0.2)</box>", "Where?", "box"),
        (REPORT, "Write the report.", "report"),
        ("a left lung", "What is it?", "open"),
    ],
)
def test_the_form_of_a_question_is_told_from_its_answer(answer, prompt, kind) -> None:
    case = case_of(a_row("s", answer, prompt))
    question = question_of(case)
    assert question.kind == kind
    assert score(question, answer, prompt) == 1.0
    assert score(question, "nothing of the kind", prompt) == 0.0


def test_a_report_is_scored_by_its_findings() -> None:
    question = question_of(case_of(a_row("s", REPORT, "Write the report.")))
    for text, expected in (
        ("Left pleural effusion. No pneumothorax. Cardiomegaly.", 1.0),
        ("Right pleural effusion. No pneumothorax. Cardiomegaly.", 0.5),  # wrong side: one invented, one missed
        ("Left pleural effusion. Pneumothorax. Cardiomegaly.", 0.5),
        ("The lungs are clear.", 0.0),
    ):
        assert score(question, text, "") == pytest.approx(expected)
    silent = question_of(case_of(a_row("s", "The soft tissues show what soft tissues show here.", "Write the report.")))
    assert silent.kind == "open" or score(silent, "A mass.", "") is None


HOW = Sampling()


@pytest.mark.parametrize(
    ("scores", "how", "best"),
    [
        ((0.2, 1.0, 0.6), HOW, ("b", "a")),
        ((0.8, 1.0, 0.9), HOW, None),
        ((0.0, 0.4, 0.2), HOW, None),  # the best is not good
        ((0.0, 0.4, 0.2), Sampling(with_reference=True), ("truth", "a")),
        ((1.0, 1.0, 0.0), HOW, ("a", "c")),
        ((None, None, None), HOW, None),
        ((0.0, 0.4, 0.2), Sampling(least_chosen=0.0), ("b", "a")),
    ],
)
def test_the_best_and_the_worst_make_a_pair_when_far_apart(scores, how, best) -> None:
    assert choose("truth", ["a", "b", "c"], scores, [True] * 3, how) == best


def test_an_empty_answer_is_no_side() -> None:
    assert choose("truth", ["", "b"], [0.0, 1.0], [True] * 2, HOW) is None
    assert choose("truth", ["B.", "b"], [0.0, 1.0], [True] * 2, HOW) is None


def test_a_rambling_answer_is_not_chosen() -> None:
    assert choose("truth", ["yes, and on", "yes", "no"], [1.0, 1.0, 0.0], [True] * 3, HOW) == ("yes", "no")
    assert choose("truth", ["yes", "no"], [1.0, 0.0], [False, True], HOW) is None
    assert choose("truth", ["yes", "no"], [1.0, 0.0], [False, True], Sampling(with_reference=True)) == ("truth", "no")


@pytest.mark.parametrize(
    "wrong", [{"answers": 1}, {"temperature": 0}, {"top_p": 0}, {"margin": 0}, {"least_chosen": 2}]
)
def test_settings_that_give_no_pair_are_refused(wrong) -> None:
    with pytest.raises(ValueError):
        Sampling(**wrong)


def a_manifest(folder: Path, count: int = 6) -> Path:
    rows = []
    for number in range(count):
        ref = write_visual(an_image(number), folder / "images", f"v{number}", folder)
        rows.append(a_row(f"s{number}", REPORT, "Write the report.", (ref,)))
    rows.append(a_row("t", REPORT, "Write the report.", split="test"))
    write_manifest(folder / "m.jsonl", rows)
    return folder / "m.jsonl"


GOOD, BAD = "Left pleural effusion. No pneumothorax. Cardiomegaly.", "Right pleural effusion and pneumothorax."


def test_answers_scores_and_settings_are_kept(tmp_path) -> None:
    speaker = Speaker((BAD, GOOD, "The heart is enlarged."))
    tally = sampled_pairs(speaker, a_manifest(tmp_path), tmp_path / "o.jsonl", PairSettings(seed=4), HOW, show=False)
    pairs, refused = read_manifest(tmp_path / "o.jsonl")
    assert len(pairs) == 6 == tally.pairs["sampled"] and not refused and not verify(tmp_path / "o.jsonl")
    for pair in pairs:
        assert [side[-1].text for side in pair.sides()] == [GOOD, BAD]
        how = pair.metadata["pair"]
        assert how["texts"] == [BAD, GOOD, "The heart is enlarged.", BAD]
        assert how["scores"] == pytest.approx([0.0, 1.0, 1 / 3, 0.0])
        assert (how["model"], how["temperature"], how["seed"]) == ("speaker", 1.0, 4)
        assert pair.preference.made_by == "sampled"
    assert "t" not in speaker.asked and tally.left_out == {"split test": 1}
    assert len(set(speaker.drawn)) == 6, "a seed for each sample"


def test_a_stopped_run_loses_the_sample_at_work_and_no_other(tmp_path) -> None:
    manifest, out = a_manifest(tmp_path), tmp_path / "o.jsonl"
    whole = Speaker((GOOD, BAD))
    sampled_pairs(whole, manifest, tmp_path / "whole.jsonl", PairSettings(), HOW, show=False)
    stopped = Speaker((GOOD, BAD), stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        sampled_pairs(stopped, manifest, out, PairSettings(), HOW, show=False)
    journal = tmp_path / "o.answers.jsonl"
    assert not out.exists() and len(journal.read_text().splitlines()) == 3
    with journal.open("a") as file:
        file.write('{"sample_id": "s3", "te')
    again = Speaker((GOOD, BAD))
    sampled_pairs(again, manifest, out, PairSettings(), HOW, show=False)
    assert again.asked == ["s3", "s4", "s5"] and again.drawn == whole.drawn[3:]
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    wider = sampled_pairs(Speaker(()), manifest, out, PairSettings(), replace(HOW, margin=1.0), show=False)
    assert wider.pairs["sampled"] == 6, "another margin asks nothing again"


def test_a_journal_of_another_run_is_refused(tmp_path) -> None:
    manifest, out = a_manifest(tmp_path, 2), tmp_path / "o.jsonl"
    sampled_pairs(Speaker((GOOD, BAD)), manifest, out, PairSettings(), HOW, show=False)
    with pytest.raises(ValueError, match="model 'speaker', not 'other'"):
        sampled_pairs(Speaker((GOOD,), name="other"), manifest, out, PairSettings(), HOW, show=False)
    with pytest.raises(ValueError, match="has seed 0, not 1"):
        sampled_pairs(Speaker((GOOD,)), manifest, out, PairSettings(seed=1), HOW, show=False)
    rows = read_manifest(manifest)[0]
    write_manifest(manifest, rows[::-1])
    with pytest.raises(ValueError, match="manifest"):
        sampled_pairs(Speaker((GOOD,)), manifest, out, PairSettings(), HOW, show=False)


def test_a_visual_that_cannot_be_read_is_quarantined(tmp_path) -> None:
    manifest = a_manifest(tmp_path, 3)
    (tmp_path / "images" / "v1.png").unlink()
    tally = sampled_pairs(Speaker((GOOD, BAD)), manifest, tmp_path / "o.jsonl", PairSettings(), HOW, show=False)
    assert tally.pairs["sampled"] == 2 and tally.quarantined == 1
    (bad,) = [json.loads(line) for line in (tmp_path / "o.quarantine.jsonl").read_text().splitlines()]
    assert bad["sample_id"] == "s1" and "no such file" in bad["reason"]


def test_a_real_checkpoint_samples_the_same_answers_for_a_seed(tmp_path, processor, capsys) -> None:
    manifest = tmp_path / "m.jsonl"
    ref = write_visual(an_image(1), tmp_path / "images", "v", tmp_path)
    prompt = "Is there a pleural effusion? Answer yes or no."
    write_manifest(manifest, [a_row(f"s{n}", "yes", prompt, (ref,)) for n in range(2)])
    checkpoint = str(save_checkpoint(tmp_path / "checkpoint", tiny_model(processor), processor))
    arguments = [str(manifest), "--model", checkpoint, "--device", "cpu", "--with-reference", "--quiet"]
    texts = []
    for name in ("a", "b"):
        code = main([*arguments, "--out", str(tmp_path / f"{name}.jsonl"), "--answers", "3"])
        rows = [json.loads(line) for line in (tmp_path / f"{name}.answers.jsonl").read_text().splitlines()]
        texts.append([row["texts"] for row in rows])
    assert texts[0] == texts[1] and len(set(texts[0][0])) > 1 and texts[0][0] != texts[0][1]
    pairs, _ = read_manifest(tmp_path / "a.jsonl")
    assert code == 0 and pairs and all(pair.sides()[0][-1].text == "yes" for pair in pairs)
    assert all(len(Renderer(processor, tmp_path).sides(pair)) == 2 for pair in pairs)
    assert "sampled" in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "c.jsonl"), "--rules", "side_flip"]) == 2
