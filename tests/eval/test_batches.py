"""Answers do not depend on what shares their batch or their pack; requests are read ahead and asked by size."""

import json
import math
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import a_video, a_volume, an_image, tiny_model
from evaluation_fixtures import a_sample, samples_of, write_manifest, write_visuals

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.sample import Question, Turn, VisualRef, chat
from medvlm.eval import choice_likelihood as likelihood
from medvlm.eval import run
from medvlm.eval.batch_decoding import cut, end_ids
from medvlm.eval.generate import generate
from medvlm.eval.loaded_model import Chosen, LoadedModel
from medvlm.eval.models import ConstantModel, Request, Response
from medvlm.eval.pairs import log_probabilities
from medvlm.eval.plan import make_plan, read_items
from medvlm.eval.rows import read_rows
from medvlm.eval.run_folder import responses_of
from medvlm.eval.slice_sets import SlicePolicy
from medvlm.model import save_checkpoint
from medvlm.model.processing import Rendered

YES_NO = Question(kind="closed", answers=("yes",), choices=("yes", "no"))
ZONES = Question(kind="choice", answers=("A",), choices=("upper", "lower", "middle"))
ASK_ZONE = "In which zone?\nA. upper\nB. lower\nC. middle\nAnswer with the letter."


@pytest.fixture(scope="module")
def loaded(processor) -> LoadedModel:
    torch.set_num_threads(1)
    return LoadedModel(tiny_model(processor), processor, name="tiny", batch_size=4, confidence=True)


def request(number: int, text: str, visuals=(), question: Question = YES_NO, room: int = 8) -> Request:
    kinds = {"Image": "image", "Volume": "volume", "Video": "video"}
    refs = [VisualRef(kind=kinds[type(v).__name__], path=f"{number}-{i}") for i, v in enumerate(visuals)]
    turns = (Turn(role="user", content=(*refs, text)),)
    return Request(
        request_id=f"{number:024x}", sample_id=str(number), turns=turns, question=question, visuals=tuple(visuals),
        max_new_tokens=room,
    )  # fmt: skip


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    """Text alone, one picture, two pictures, a volume, a clip, a picture and a volume; unlike prompts and room."""
    open_ = Question(kind="open", answers=("x",))
    return [
        request(0, "Is there a pleural effusion?"),
        request(1, "Is there a nodule?", [an_image(1)], room=3),
        request(2, "What has changed between the two pictures?", [an_image(2), an_image(3, 90, 40)], open_, room=12),
        request(3, ASK_ZONE, [a_volume(2)], ZONES),
        request(4, "How large is it?", [a_video(3)], open_, room=5),
        request(5, "On which side is the mass? Answer left or right.", [an_image(4), a_volume(5, 20)], room=6),
        request(6, ASK_ZONE, [an_image(1)], ZONES, room=4),
        request(7, "How large?", [], open_),
    ]


def texts(responses: list[Response]) -> list[tuple[str, str]]:
    return [(response.text, response.finish_reason) for response in responses]


def test_batches_of_1_4_and_16_write_the_same(processor, loaded, requests):
    answers = {}
    for size in (1, 4, 16):
        model = LoadedModel(loaded.model, processor, name="tiny", batch_size=size, confidence=True)
        answers[size] = model.answer(requests)
        backwards = model.answer(requests[::-1])[::-1]
        assert texts(backwards) == texts(answers[size])
    assert texts(answers[1]) == texts(answers[4]) == texts(answers[16])
    assert len(set(texts(answers[1]))) >= 6 and {r.finish_reason for r in answers[1]} <= {"stop", "length"}
    for one, many in zip(answers[1], answers[16], strict=True):
        if one.confidence is None:
            assert many.confidence is None
        else:
            assert many.confidence == pytest.approx(one.confidence, abs=1e-5) and 0 < one.confidence <= 1
        assert many.choices == pytest.approx(one.choices, abs=1e-5)
    # room of its own, though the batch went on for the longest
    for asked, response in zip(requests, answers[16], strict=True):
        assert 1 <= response.usage["new_tokens"] <= asked.max_new_tokens
        assert response.usage["seconds"] > 0 and response.usage["prompt_tokens"] > 5


def test_a_visual_that_several_questions_show_is_encoded_once_in_a_batch(processor, loaded):
    shown = an_image(7)
    shared = [request(n, text, [shown]) for n, text in enumerate(["Is there a nodule?", "An effusion?", "Why?"])]
    apart = [request(n, one.turns[0].text, [an_image(7)]) for n, one in enumerate(shared)]
    encoded: list[int] = []
    handle = loaded.model.vision.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0])))
    model = LoadedModel(loaded.model, processor, name="tiny", batch_size=4)
    patched = model.prepare(shown)
    together = model.answer([replace(one, visuals=(patched,)) for one in shared])
    assert texts(together) == texts(model.answer(apart))
    handle.remove()
    assert encoded[1] == 3 * encoded[0] == 3 * len(patched[0][1].patches)


def test_greedy_decoding_through_packs_writes_the_same(processor, loaded, requests):
    """The pack is the way that training takes: no mask, no cache, samples end to end, argmax step by step."""
    batched = LoadedModel(loaded.model, processor, name="tiny", batch_size=4).answer(requests)
    model, ends = loaded.model, end_ids(loaded.model, processor)
    rows = [
        processor.render(chat(asked.turns), [processor.patch(v) for v in asked.visuals], True) for asked in requests
    ]
    written: list[list[int]] = [[] for _ in rows]
    for _ in range(max(asked.max_new_tokens for asked in requests)):
        batch = collate([(str(n), (row,)) for n, row in enumerate(rows)])
        with torch.no_grad():
            logits = model(**batch.model_inputs()).logits[0]
        for n, end in enumerate(batch.cu_seqlens[1:].tolist()):
            token = int(logits[end - 1].argmax())
            written[n].append(token)
            rows[n] = Rendered(
                tokens=np.append(rows[n].tokens, token), supervised=np.append(rows[n].supervised, False),
                positions=np.append(rows[n].positions, rows[n].positions[-1] + 1), visuals=rows[n].visuals,
            )  # fmt: skip
    for asked, tokens, response in zip(requests, written, batched, strict=True):
        own, ended = cut(tokens, ends, asked.max_new_tokens)
        assert processor.tokenizer.decode(own, skip_special_tokens=True).strip() == response.text
        assert ended == (response.finish_reason == "stop")


def test_cut_ends_at_the_end_or_at_the_room():
    assert cut([5, 6, 2, 9], {2, 3}, 10) == ([5, 6], True)
    assert cut([5, 6, 7, 2], {2}, 3) == ([5, 6, 7], False)
    assert cut([2], {2}, 3) == ([], True)


def test_confidence_of_a_text_is_the_product_of_its_tokens(processor, loaded, requests):
    (told,) = loaded.answer([requests[2]])
    inputs = processor([chat(requests[2].turns)], [list(requests[2].visuals)])
    with torch.no_grad():
        out = loaded.model.generate(
            **inputs, max_new_tokens=12, do_sample=False, output_scores=True, return_dict_in_generate=True,
            eos_token_id=sorted(end_ids(loaded.model, processor)), pad_token_id=processor.tokenizer.pad_token_id,
        )  # fmt: skip
    steps = [float(scores.softmax(-1).max()) for scores in out.scores]
    assert told.confidence == pytest.approx(math.prod(steps), rel=1e-4)
    assert told.usage["new_tokens"] == len(steps)


def reference(processor, model, asked: Request, words: list[str], with_end: bool) -> list[float]:
    """Log P of each answer by a pass of its own, through the arithmetic of training."""
    found = []
    for text in words:
        turns = [*chat(asked.turns), {"role": "assistant", "content": [{"type": "text", "text": text}]}]
        whole = processor.render(turns, [processor.patch(v) for v in asked.visuals])
        supervised = whole.supervised.copy()
        if not with_end:
            supervised[np.flatnonzero(supervised)[-1]] = False
        rendered = replace(whole, supervised=supervised)
        found += log_probabilities(model, collate([("one", (rendered,))]))
    return found


def test_likelihood_of_choices_in_one_pack_is_that_of_each_alone(processor, loaded, requests):
    model = loaded.model
    ends = ["left", "left lower zone", "right lower zone"]
    sides = Question(kind="closed", answers=("left",), choices=tuple(ends))
    shown = an_image(1)
    asked = [
        requests[0],
        request(10, ASK_ZONE, [shown], ZONES),
        request(11, "Where is it?", [shown], sides),
        request(12, "Is there a nodule?", [shown]),
        requests[5],
    ]
    patched = {id(v): processor.patch(v) for one in asked for v in one.visuals}
    words = [likelihood.choice_texts(one.question, one.turns[-1].text) for one in asked]
    assert words[1] == ("A", "B", "C") and words[0] == ("yes", "no") and words[2] == tuple(ends)
    questions = [
        likelihood.choices_of(processor, chat(one.turns), [patched[id(v)] for v in one.visuals], of_one)
        for one, of_one in zip(asked, words, strict=True)
    ]
    encoded: list[int] = []
    handle = model.vision.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0])))
    values = likelihood.log_probabilities_of(model, questions, "cpu")
    handle.remove()
    # one pass over all questions, and the picture that three of them show is encoded once
    assert encoded == [sum(len(visual.patches) for visual in patched.values())]
    for one, of_one, found in zip(asked, words, values, strict=True):
        # "left" begins "left lower zone": only with its end is it an answer of its own
        expected = reference(processor, model, one, list(of_one), with_end=one.question is sides)
        assert found == pytest.approx(expected, abs=1e-4), of_one
    # a letter needs no more than the prompt; unlike words of several tokens need a side each
    assert len(questions[1].sides) == 1 and len(questions[2].sides) == 2
    assert sum(likelihood.shares(values[2])) == pytest.approx(1)


def test_small_packs_give_the_same(processor, loaded, requests, monkeypatch):
    asked = [one for one in requests if likelihood.has_choices(one.question)]
    questions = [
        likelihood.choices_of(
            processor, chat(one.turns), [processor.patch(v) for v in one.visuals],
            likelihood.choice_texts(one.question, one.turns[-1].text),
        )
        for one in asked
    ]  # fmt: skip
    whole = likelihood.log_probabilities_of(loaded.model, questions, "cpu")
    monkeypatch.setattr(likelihood, "PACK_TOKENS", 1)
    alone = likelihood.log_probabilities_of(loaded.model, questions, "cpu")
    assert [value for row in whole for value in row] == pytest.approx([v for row in alone for v in row], abs=1e-4)


def test_answers_by_likelihood(processor, loaded, requests):
    model = LoadedModel(loaded.model, processor, name="tiny", batch_size=4, answer_by="likelihood")
    for asked, response in zip(requests, model.answer(requests), strict=True):
        if not likelihood.has_choices(asked.question):
            assert response.choices is None and response.confidence is None
            continue
        words = likelihood.choice_texts(asked.question, asked.turns[-1].text)
        expected = reference(processor, loaded.model, asked, list(words), with_end=False)
        assert response.text == words[int(np.argmax(expected))]
        assert response.confidence == max(response.choices) and len(response.choices) == len(words)


def test_confidence_is_that_of_the_choice_that_the_text_names(loaded):
    told = likelihood.shares([-1.0, -2.0, -3.0])
    chosen = Chosen(question=ZONES, prompt=ASK_ZONE, texts=("A", "B", "C"), shares=told, seconds=0.1)
    assert chosen.about(Response(text="It is B.")).confidence == told[1]
    assert chosen.about(Response(text="the middle zone")).confidence == told[2]
    unread = chosen.about(Response(text="A or B"))
    assert unread.confidence is None and unread.choices == told


def test_a_choice_that_would_be_read_as_another_is_refused(loaded):
    odd = Question(kind="closed", answers=("*",), choices=("*", "#"))  # nothing is left of these when they are read
    with pytest.raises(BadSample, match="is read as None"):
        likelihood.choice_texts(odd, "Is it?")
    # the text stays the answer where only the confidence cannot be told
    (told,) = loaded.answer([request(0, "Is it?", question=odd)])
    assert told.text and told.choices is None and told.confidence is not None


def test_volumes_as_slice_sets(processor, loaded):
    policy = SlicePolicy(slices=3, windows=("lung",), longest=40)
    model = LoadedModel(loaded.model, processor, name="tiny", slices=policy)
    (shown,) = model._prepared(request(0, "Is there a nodule?", [a_volume(2)])).visuals
    assert [part[0] for part in shown if not isinstance(part, str)] == ["image"] * 3
    assert "patient's left is on the right of the picture" in shown[0]
    with_slices = model.answer([request(0, "Is there a nodule?", [a_volume(2)])])
    assert texts(with_slices) != texts(loaded.answer([request(0, "Is there a nodule?", [a_volume(2)])]))
    assert model.settings["slices"]["slices"] == 3 and loaded.settings["slices"] is None


# --- reading ahead -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_visuals(folder, 6)
    samples = [sample for patient in range(6) for sample in samples_of(patient)]
    samples.append(a_sample(0, "text", "q", "Report: a nodule. Is there?", YES_NO, False))
    return write_manifest(folder / "test.jsonl", samples)


class Watched(LoadedModel):
    """Notes which batches are written, and on which threads visuals are prepared."""

    def __init__(self, *arguments, **more) -> None:
        super().__init__(*arguments, **more)
        self.batches: list[list[tuple[int, ...]]] = []
        self.threads: list[str] = []

    def prepare(self, visual):
        self.threads.append(threading.current_thread().name)
        return super().prepare(visual)

    def write(self, requests, **decoding):
        self.batches.append([self.size(one) for one in requests])
        return super().write(requests, **decoding)


def padding(batches: list[list[tuple[int, ...]]], part: int) -> int:
    return sum(max(size[part] for size in batch) - size[part] for batch in batches for size in batch)


@pytest.mark.parametrize("condition", ["image", "no_image"])
def test_requests_are_asked_by_size_over_many_chunks(processor, loaded, manifest, tmp_path, condition):
    items, _ = read_items([manifest])
    asks = make_plan(items, conditions=[condition], max_new_tokens=3).asks
    model = Watched(loaded.model, processor, name="tiny", batch_size=4)
    generate(model, asks, tmp_path, chunk_size=8, show_progress=False)
    assert len(responses_of(tmp_path)) == len(asks) == sum(map(len, model.batches))
    assert all(len(batch) == 4 for batch in model.batches[:-3])
    # against sorting within each chunk, which is what a batch could do without looking further ahead
    within = []
    for at in range(0, len(asks), 8):
        sizes = sorted(model.size(model._prepared(one)) for one in requests_of(asks[at : at + 8]))
        within += [sizes[i : i + 4] for i in range(0, len(sizes), 4)]
    part = 0 if condition == "image" else 2
    assert padding(model.batches, part) < 0.6 * padding(within, part)
    if condition == "image":
        # each visual is prepared once in a window, never by the thread that writes, and shared by its questions
        assert not any(name == "MainThread" for name in model.threads[: len(asks) // 5])
        assert sum(len({visual for _, visual, _ in batch}) for batch in model.batches) <= 1.7 * len(model.batches)
    used = read_rows(tmp_path / "timings.rank0.jsonl")
    assert len(used) == len(asks) and all(row["new_tokens"] <= 3 and row["seconds"] > 0 for row in used)


def requests_of(asks) -> list[Request]:
    from medvlm.data_recipes.readers import read
    from medvlm.data_recipes.sample import visuals_of

    return [
        Request(
            request_id=ask.request_id, sample_id="s", turns=ask.turns, question=ask.question,
            visuals=tuple(read(ref, ask.item.root) for ref in visuals_of(ask.turns)), max_new_tokens=3,
        )
        for ask in asks
    ]  # fmt: skip


def test_chunks_change_nothing_but_the_order(processor, loaded, manifest, tmp_path):
    items, _ = read_items([manifest])
    asks = make_plan(items, conditions=["image"], limit=20, max_new_tokens=4).asks
    found = []
    for size in (1, 3, 64):
        out = tmp_path / str(size)
        out.mkdir()
        generate(loaded, asks, out, chunk_size=size, show_progress=False)
        found.append(sorted((row["request_id"], row["text"]) for row in responses_of(out)))
    assert found[0] == found[1] == found[2]


def test_a_visual_that_does_not_fit_is_quarantined(loaded, manifest, tmp_path):
    items, _ = read_items([manifest])
    asks = make_plan(items, conditions=["image"], limit=6, max_new_tokens=2).asks
    small = LoadedModel(loaded.model, loaded.processor, name="tiny")

    def refuse(visual):
        raise ValueError("the budget of 1 patches is too small")

    small.prepare = refuse  # type: ignore[method-assign]
    told = generate(small, asks, tmp_path, show_progress=False)
    assert told.answered == sum(not ask.item.sample.visuals() for ask in asks)
    rows = read_rows(tmp_path / "quarantine.rank0.jsonl")
    assert len(rows) == len(asks) - told.answered and "too small" in rows[0]["reason"]


def test_a_run_belongs_to_one_way_of_answering(processor, manifest, tmp_path, capsys):
    model = tiny_model(processor)
    save_checkpoint(tmp_path / "tiny", model, processor)
    arguments = [
        "--model", str(tmp_path / "tiny"), "--data", str(manifest), "--out", str(tmp_path / "run"), "--limit", "6",
        "--conditions", "image", "--max-new-tokens", "2", "--device", "cpu", "--gallery", "1",
    ]  # fmt: skip
    assert run.main([*arguments, "--confidence"]) == 0
    told = json.loads((tmp_path / "run" / "run.json").read_text())["answering"]
    assert len(told.pop("weights")) == 16
    assert told == {"answer_by": "text", "confidence": True, "dtype": "float32", "slices": None}
    for more in (["--answer-by", "likelihood"], ["--slices", "slices=2"], ["--dtype", "bfloat16"]):
        assert run.main([*arguments, "--confidence", *more]) == 2
        assert "holds the answers of answering" in capsys.readouterr().err
    assert run.main([*arguments[:1], "oracle", *arguments[2:], "--answer-by", "likelihood"]) == 2
    assert "--answer-by means nothing to the model 'oracle'" in capsys.readouterr().err
    with torch.no_grad():
        for weights in model.parameters():
            weights.mul_(1.01)
    save_checkpoint(tmp_path / "tiny", model, processor)  # trained further, under the same path
    assert run.main([*arguments, "--confidence"]) == 2
    assert "holds the answers of answering" in capsys.readouterr().err


def test_a_fault_is_counted_once_over_starts(manifest, tmp_path):
    folder = manifest.parent
    samples = samples_of(0, ("image",))
    absent = VisualRef(kind="image", path="comes-later.png")
    late = replace(samples[0], sample_id="late", turns=(Turn(role="user", content=(absent, "Is there?")),))
    data = write_manifest(folder / "late.jsonl", [*samples, late])
    for _ in range(2):
        metrics = run.evaluate(ConstantModel("yes"), [data], tmp_path, run.Settings(conditions=("image",)))
        assert metrics["run"]["quarantined"] == 1 and metrics["counts"]["responses"] == 5
        (row,) = read_rows(tmp_path / "quarantine.jsonl")
        assert row["sample_id"] == "late" and not list(tmp_path.glob("quarantine.rank*"))
    (folder / "comes-later.png").write_bytes((folder / "0.png").read_bytes())
    metrics = run.evaluate(ConstantModel("yes"), [data], tmp_path, run.Settings(conditions=("image",)))
    assert metrics["run"]["quarantined"] == 0 and metrics["counts"]["responses"] == 6
    assert read_rows(tmp_path / "quarantine.jsonl") == []
