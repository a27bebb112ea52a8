"""Any vision-language model of transformers: real tiny models of families that nothing here was written for."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import a_video, a_volume, an_image
from evaluation_fixtures import samples_of, write_manifest, write_visuals
from external_families import make_checkpoint
from foreign_families import END, FAMILIES, IMAGE, NEED_TORCHVISION, make_foreign
from PIL import Image as Pil

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Question, Turn, VisualRef
from medvlm.eval import run
from medvlm.eval.choice_likelihood import choice_texts
from medvlm.eval.choose_model import ModelOptions, choose_model
from medvlm.eval.foreign import ForeignModel
from medvlm.eval.loaded_model import CheckpointModel
from medvlm.eval.models import Request
from medvlm.eval.rows import read_rows
from medvlm.eval.slice_sets import Picture, SlicePolicy, show, spread

YES_NO = Question(kind="closed", answers=("yes",), choices=("yes", "no"))
SIDES = Question(kind="closed", answers=("left",), choices=("left", "left lower zone", "right lower zone"))
FEW = SlicePolicy(slices=2, windows=("lung",), frames=2, longest=40)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request, tmp_path_factory) -> ForeignModel:
    family = request.param
    if family in NEED_TORCHVISION and importlib.util.find_spec("torchvision") is None:
        pytest.skip(f"the processor of {family} needs torchvision: pip install 'medvlm[encoders]'")
    torch.set_num_threads(1)
    folder = make_foreign(family, tmp_path_factory.mktemp(family) / "model")
    return ForeignModel(folder, device="cpu", batch_size=4, slices=FEW, confidence=True)


def request(number: int, text: str, visuals=(), question: Question = YES_NO, room: int = 5) -> Request:
    kinds = {"Image": "image", "Volume": "volume", "Video": "video"}
    refs = [VisualRef(kind=kinds[type(v).__name__], path=f"{number}-{i}") for i, v in enumerate(visuals)]
    # a picture before and one after the words: the places are kept
    content = (*refs[:1], text, *refs[1:])
    return Request(
        request_id=f"{number:024x}", sample_id=str(number), turns=(Turn(role="user", content=content),),
        question=question, visuals=tuple(visuals), max_new_tokens=room,
    )  # fmt: skip


def requests() -> list[Request]:
    open_ = Question(kind="open", answers=("x",))
    return [
        request(0, "Is there a pleural effusion?"),
        request(1, "Is there a nodule?", [an_image(1)]),
        request(2, "What has changed?", [an_image(2), an_image(3, 90, 40)], open_, 8),
        request(3, "Is there a mass?", [a_volume(2)]),
        request(4, "How large is it?", [a_video(3)], open_, 4),
        request(5, "On which side is the nodule?", [an_image(4, 30, 90)], SIDES),
        request(6, "How large?", [an_image(5)], open_, 6),
    ]


def test_batches_of_1_and_4_write_the_same(model):
    asked = requests()
    found = {}
    for size in (1, 4):
        model.batch_size = size
        found[size] = model.answer(asked)
    assert [(r.text, r.finish_reason) for r in found[1]] == [(r.text, r.finish_reason) for r in found[4]]
    assert len({response.text for response in found[1]}) >= 5
    for one, many, request in zip(found[1], found[4], asked, strict=True):
        assert many.choices == pytest.approx(one.choices, abs=1e-5)
        if one.confidence is not None:
            assert many.confidence == pytest.approx(one.confidence, abs=1e-5)
        assert one.usage["new_tokens"] <= request.max_new_tokens


def test_an_answer_is_that_of_the_library_called_plainly(model):
    """Our whole way against apply_chat_template, the processor and generate, for one picture and one question."""
    asked = requests()[1]
    processor, (visual,) = model.processor.processor, asked.visuals
    grey = np.repeat((visual.pixels[0] * 255).round().astype(np.uint8)[..., None], 3, axis=2)
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there a nodule?"}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(text=prompt, images=[Pil.fromarray(grey)], return_tensors="pt", add_special_tokens=False)
    with torch.no_grad():
        ids = model.model.generate(
            **inputs, max_new_tokens=5, do_sample=False, eos_token_id=sorted(model.processor.end_ids)
        )
    written = processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    (told,) = model.answer([asked])
    assert told.text == written and written


def test_likelihood_is_that_of_each_choice_alone(model):
    asked = requests()[5]
    words = choice_texts(SIDES, "On which side is the nodule?")
    tokenizer = model.processor.tokenizer
    inputs = dict(model._inputs([asked], 0))
    expected = []
    for text in words:
        answer = [*tokenizer(text, add_special_tokens=False)["input_ids"], min(model.processor.end_ids)]
        ids = torch.cat([inputs["input_ids"], torch.tensor([answer])], dim=1)
        grown = {
            name: torch.cat([value, value.new_zeros(1, len(answer))], dim=1)
            for name, value in inputs.items()
            if value.shape == inputs["input_ids"].shape and name not in ("input_ids", "attention_mask")
        }
        with torch.no_grad():
            logits = model.model(**{**inputs, **grown, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits
        steps = logits[0, -len(answer) - 1 : -1].log_softmax(-1)
        expected.append(float(steps.gather(1, torch.tensor(answer)[:, None]).sum()))
    assert model._log_probabilities(asked, words) == pytest.approx(expected, abs=1e-4)


def test_a_special_token_in_a_question_is_refused(model):
    for text in (f"Is there {IMAGE} a nodule?", f"yes{END}"):
        with pytest.raises(BadSample, match="a special token of this model"):
            model.answer([request(1, text, [an_image(1)])])


def test_volumes_and_clips_are_pictures_in_their_places(model):
    shown = show(a_volume(2), FEW)
    prompt = model.processor.prompt(spread(requests()[3].turns, [shown]))
    mark = model.processor.prompt([("user", [Picture(rgb=np.zeros((2, 2, 3), np.uint8))])])
    mark = mark[mark.index("user: ") + 6 : mark.index(END)]
    assert prompt.count(mark) == 2
    assert prompt.index("Slice 1 of 2") < prompt.index(mark) < prompt.index("Slice 2 of 2") < prompt.rindex(mark)
    assert prompt.rindex(mark) < prompt.index("Is there a mass?")
    assert "patient's left is on the right of the picture" in prompt
    assert model.settings["slices"] == FEW.to_dict() and model.settings["image_processor"].endswith("Pil")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_foreign("idefics3", tmp_path_factory.mktemp("run") / "model")


def test_a_whole_run(folder, tmp_path, capsys):
    write_visuals(tmp_path, 2)
    samples = [sample for patient in range(2) for sample in samples_of(patient)]
    manifest = write_manifest(tmp_path / "test.jsonl", samples)
    arguments = [
        "--model", f"transformers:{folder}", "--data", str(manifest), "--out", str(tmp_path / "run"), "--conditions",
        "image", "--max-new-tokens", "2", "--device", "cpu", "--batch-size", "4", "--slices", "slices=2,frames=2",
        "--gallery", "1",
    ]  # fmt: skip
    assert run.main(arguments) == 0
    assert len(read_rows(tmp_path / "run" / "responses.rank0.jsonl")) == len(samples)
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["model"] == f"transformers:{folder}" and told["answering"]["slices"]["frames"] == 2
    # another policy is another way of asking
    assert run.main([*arguments[:-3], "slices=3,frames=2", *arguments[-2:]]) == 2
    assert "holds the answers of answering" in capsys.readouterr().err


def test_served_families_go_through_their_own_path_with_slice_sets(tmp_path):
    folder = make_checkpoint("qwen3_vl", tmp_path / "served")
    answerer = choose_model(f"transformers:{folder}", ModelOptions(device="cpu", batch_size=2, slices=FEW))
    assert isinstance(answerer, CheckpointModel) and not isinstance(answerer, ForeignModel)
    assert answerer.settings["slices"] == FEW.to_dict() and answerer.settings["visuals"]["volumes"] == "slices"
    one, four = (
        CheckpointModel(folder, device="cpu", batch_size=size, slices=FEW, confidence=True).answer(requests())
        for size in (1, 4)
    )
    assert [response.text for response in one] == [response.text for response in four]
    assert all(response.choices is None or sum(response.choices) == pytest.approx(1) for response in four)
    # questions that share a prepared visual
    shown = answerer.prepare(an_image(1))
    shared = [replace(request(n, "Is there a nodule?" + n * " ?", [an_image(1)]), visuals=(shown,)) for n in range(2)]
    apart = [replace(one, visuals=(an_image(1),)) for one in shared]
    assert [r.text for r in answerer.answer(shared)] == [r.text for r in answerer.answer(apart)]


def test_what_is_no_model_is_said_so(tmp_path, folder):
    with pytest.raises(ValueError, match=r"cannot be loaded: .* holds no config\.json"):
        choose_model(str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="there is no model of transformers at"):
        choose_model(f"transformers:{tmp_path / 'nothing'}")
    with pytest.raises(ValueError, match="use one of float32"):
        ForeignModel(folder, dtype="int4", device="cpu")
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        if not path.name.startswith("chat_template"):
            (broken / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="has no chat template"):
        ForeignModel(broken, device="cpu")
