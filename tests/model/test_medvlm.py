"""The model alone: packing, saving, generation."""

import copy

import pytest
import torch
from conftest import a_chat, a_volume, an_image, tiny_model
from transformers import AutoModelForImageTextToText, AutoProcessor

from medvlm.data_recipes.packing import collate
from medvlm.model import MedVLMProcessor, load_checkpoint, save_checkpoint


def rendered(processor, conversations):
    return [processor.render(messages, [processor.patch(v) for v in visuals]) for messages, visuals in conversations]


def with_attention(model, name):
    if name == "default":
        assert model.text.config._attn_implementation == "sdpa_packed"
        assert model.vision.config._attn_implementation == "sdpa"
        return model
    model.set_attn_implementation(name)
    assert model.vision.config._attn_implementation == name
    assert model.text.config._attn_implementation == name
    return model


@pytest.mark.parametrize("decoder", ["qwen3", "llama", "gemma3_text"])
@pytest.mark.parametrize("attention", ["default", "eager", "sdpa"])
def test_packed_forward_equals_each_sample_alone(processor, conversations, attention, decoder):
    # Gemma 3 has a sliding window, here shorter than the longest sample.
    window = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    model = tiny_model(processor, model_type=decoder, **(window if decoder == "gemma3_text" else {}))
    model = with_attention(model, attention)
    samples = rendered(processor, conversations)
    together = collate([(str(n), [sample]) for n, sample in enumerate(samples)])
    together.check(visual_token_id=processor.visual_token_id)
    with torch.no_grad():
        packed = model(**together.model_inputs()).logits[0]
        for n, sample in enumerate(samples):
            alone = model(**collate([("alone", [sample])]).model_inputs()).logits[0]
            start, stop = together.cu_seqlens[n : n + 2].tolist()
            assert alone.std() > 0.1, "the outputs must differ enough for an equality to mean something"
            torch.testing.assert_close(packed[start:stop], alone, atol=1e-5, rtol=0)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_encoder_equals_each_visual_alone(processor, model, attention):
    model = with_attention(model, attention)
    visuals = [processor.patch(v) for v in (an_image(1), a_volume(2), an_image(3), an_image(4), a_volume(5, 30))]
    one = {"role": "user", "content": [{"type": "text", "text": "x"}]}

    def features(shown):
        parts = [{"type": "image"}] * len(shown)
        chat = [{"role": "user", "content": parts}, {"role": "assistant", "content": one["content"]}]
        batch = collate([("s", [processor.render(chat, shown)])])
        with torch.no_grad():
            return model.vision(batch.patches, batch.grids, batch.spacing, batch.axis_kinds, model.merge)

    apart = torch.cat([features([visual]) for visual in visuals])
    torch.testing.assert_close(features(visuals), apart, atol=1e-5, rtol=0)


def test_eager_equals_sdpa(processor, model, conversations):
    batch = collate([(str(n), [s]) for n, s in enumerate(rendered(processor, conversations))])
    with torch.no_grad():
        default = with_attention(model, "default")(**batch.model_inputs()).logits
        sdpa = with_attention(model, "sdpa")(**batch.model_inputs()).logits
        eager = with_attention(model, "eager")(**batch.model_inputs()).logits
    torch.testing.assert_close(sdpa, eager, atol=1e-5, rtol=0)
    torch.testing.assert_close(default, eager, atol=1e-5, rtol=0)


def test_a_visual_of_another_sample_changes_nothing(processor, model, conversations):
    changed = [conversations[0], (conversations[1][0], [a_volume(77)])]
    sides = [rendered(processor, c) for c in (conversations[:2], changed)]
    packs = [collate([(str(n), [s]) for n, s in enumerate(side)]) for side in sides]
    with torch.no_grad():
        first, second = (model(**pack.model_inputs()).logits[0] for pack in packs)
    end = int(packs[0].cu_seqlens[1])
    torch.testing.assert_close(first[:end], second[:end], atol=1e-6, rtol=0)
    assert (first[end:] - second[end:]).abs().max() > 1e-3


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("decoder", ["qwen3", "llama"])
def test_save_and_load_is_exact(processor, tmp_path, tied, decoder):
    model = tiny_model(processor, model_type=decoder, tie_word_embeddings=tied)
    save_checkpoint(tmp_path / "checkpoint", model, processor)
    loaded, again = load_checkpoint(tmp_path / "checkpoint")
    for (name, before), (other, after) in zip(model.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(before, after), name
    inputs = again(messages=[a_chat(["image"], "Is there a nodule?")], visuals=[[an_image()]])
    expected = processor(messages=[a_chat(["image"], "Is there a nodule?")], visuals=[[an_image()]])
    for key in expected:
        torch.testing.assert_close(inputs[key], expected[key], atol=0, rtol=0, equal_nan=True)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)


def test_auto_classes_load_the_folder(processor, model, tmp_path):
    save_checkpoint(tmp_path, model, processor)
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is type(model)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert type(again) is type(processor)
    assert again.rule == processor.rule
    assert again.intensity == processor.intensity


def test_generation_does_not_depend_on_the_batch(processor, model, conversations):
    messages = [turns[:1] for turns, _ in conversations]
    visuals = [shown for _, shown in conversations]
    options = {"max_new_tokens": 8, "do_sample": False}
    together = model.generate(**processor(messages=messages, visuals=visuals), **options)[:, -8:]
    for row, (turns, shown) in enumerate(zip(messages, visuals, strict=True)):
        alone = model.generate(**processor(messages=[turns], visuals=[shown]), **options)
        new = alone[0, processor(messages=[turns], visuals=[shown])["input_ids"].shape[1] :]
        assert new.tolist() == together[row, : len(new)].tolist()


def test_generation_with_cache_equals_without(processor, model, conversations):
    turns, shown = conversations[4]
    inputs = processor(messages=[turns[:1]], visuals=[shown])
    options = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(
        model.generate(**inputs, **options, use_cache=True), model.generate(**inputs, **options, use_cache=False)
    )


def test_beams_share_their_visuals(processor, model, conversations):
    rows = [conversations[4], conversations[0], conversations[3]]
    inputs = processor(messages=[turns[:1] for turns, _ in rows], visuals=[shown for _, shown in rows])
    together = model.generate(**inputs, max_new_tokens=4, num_beams=3, do_sample=False)[:, -4:]
    for row, (turns, shown) in enumerate(rows):
        alone = model.generate(
            **processor(messages=[turns[:1]], visuals=[shown]), max_new_tokens=4, num_beams=3, do_sample=False
        )
        assert alone[0, -4:].tolist() == together[row].tolist()


def test_other_architecture_is_refused(tmp_path):
    from transformers import LlamaConfig

    LlamaConfig(hidden_size=64, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is a 'llama' checkpoint, expected 'medvlm'.*model\.text\.pretrained"):
        load_checkpoint(tmp_path)


def test_folder_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json; expected a checkpoint folder"):
        load_checkpoint(tmp_path)


def test_processor_of_another_model_is_refused(processor, model):
    inputs = processor(messages=[a_chat(["image"], "x")], visuals=[[an_image()]])
    inputs["input_ids"] = inputs["input_ids"][:, 3:]
    inputs["attention_mask"] = inputs["attention_mask"][:, 3:]
    inputs["input_ids"][0, 0] = 0
    inputs["input_ids"][0, 1:3] = 0
    with pytest.raises(ValueError, match=r"placeholder tokens for \d+ visual tokens; use the processor"):
        model(**inputs)


def test_patches_of_another_encoder_are_refused(processor, model):
    inputs = processor(messages=[a_chat(["image"], "x")], visuals=[[an_image()]])
    inputs["patches"] = inputs["patches"][:, :-3]
    with pytest.raises(
        ValueError, match=r"a patch holds 381 numbers, .* hold 384 \(patch_size \[2, 8, 8\]\); use the proc"
    ):
        model(**inputs)


def test_a_folder_of_two_checkpoints_is_refused(processor, model, tmp_path):
    save_checkpoint(tmp_path, model, processor)
    other = MedVLMProcessor(processor.tokenizer, patch_size=processor.patch_size, merge=(1, 1, 1))
    other.save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"has merge \[1, 1, 1\], but its model \[1, 2, 2\]; the folder was put together"
    ):
        load_checkpoint(tmp_path)


def test_a_checkpoint_in_half_precision_is_trained_in_full(processor, model, tmp_path):
    save_checkpoint(tmp_path, copy.deepcopy(model).to(torch.bfloat16), processor)
    assert {p.dtype for p in load_checkpoint(tmp_path)[0].parameters()} == {torch.float32}
    assert {p.dtype for p in load_checkpoint(tmp_path, dtype=torch.bfloat16)[0].parameters()} == {torch.bfloat16}
