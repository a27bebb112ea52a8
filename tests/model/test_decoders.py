"""Decoders of every served family behind our encoder: their chat, their end of turn, packing, training, saving."""

import pytest
import torch
from conftest import a_volume, an_image
from decoder_families import FAMILIES, family_tokenizer
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from medvlm.data_recipes.packing import collate
from medvlm.model import MedVLMProcessor, build_model, load_checkpoint, save_checkpoint
from medvlm.model.batch import IGNORED
from medvlm.model.chat_template import end_of_turn_ids, tokenize_chat
from medvlm.model.tokenizer import add_visual_token, set_chat_template, vocabulary_size
from medvlm.model.vocabulary import grow_vocabulary

VISION = {
    "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "patch_size": (2, 8, 8),
}  # fmt: skip
ENDS = {
    "qwen2.5": {"<|im_end|>"}, "qwen3": {"<|im_end|>"}, "qwen3_moe": {"<|im_end|>"},
    "llama3": {"<|eot_id|>", "<|end_of_text|>"}, "gemma2": {"<end_of_turn>", "<eos>"},
    "gemma3": {"<end_of_turn>", "<eos>"}, "phi3": {"<|end|>", "<|endoftext|>"}, "mistral": {"</s>"},
    "mixtral": {"</s>"},
}  # fmt: skip
families = pytest.mark.parametrize("name", FAMILIES)


def turns(*texts, system=None):
    roles = ["user", "assistant"] * len(texts)
    start = [] if system is None else [{"role": "system", "content": system}]
    return start + [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


def a_processor(name):
    tokenizer = family_tokenizer(FAMILIES[name])
    add_visual_token(tokenizer)
    limits = {"max_patches": {"image": 16, "volume": 32, "video": 32}, "max_depth": {"volume": 4, "video": 4}}
    return MedVLMProcessor(tokenizer, patch_size=(2, 8, 8), **limits)


def a_model(name, processor, folder):
    """A decoder of the family, saved and loaded as a pretrained one, with fewer rows than the tokenizer has."""
    torch.manual_seed(0)
    size = vocabulary_size(processor.tokenizer)
    config = AutoConfig.for_model(**FAMILIES[name].config, vocab_size=size - 1, pad_token_id=None)
    decoder = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.mul_(4 if parameter.ndim > 1 else 1)
    decoder.save_pretrained(folder)
    model = build_model(
        VISION, {"hidden_size": 64}, {"pretrained": str(folder)}, size, processor.visual_token_id
    ).eval()
    model.generation_config.eos_token_id = sorted(processor.end_ids)
    return model


@families
def test_the_chat_is_the_librarys_own(name):
    tokenizer = family_tokenizer(FAMILIES[name])
    visual, ends = add_visual_token(tokenizer), end_of_turn_ids(tokenizer)
    assert set(tokenizer.convert_ids_to_tokens(ends)) == ENDS[name]
    chat = turns("Is there a mass?", " yes \n", "left", "right, 25 mm")
    made = tokenize_chat(tokenizer, chat, [], visual, ends)
    assert made.tokens == tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"]
    if FAMILIES[name].bos:
        assert made.tokens.count(tokenizer.bos_token_id) <= 1, "the beginning of text is written once"
    learnt = [token for token, flag in zip(made.tokens, made.supervised, strict=True) if flag]
    end = FAMILIES[name].special[0]
    words = tokenizer.decode(learnt, clean_up_tokenization_spaces=False).split(end)
    assert [part.strip() for part in words] == ["yes", "right, 25 mm", ""], "answers and their own end, nothing else"
    prompt = tokenize_chat(tokenizer, chat[:3], [], visual, ends, add_generation_prompt=True).tokens
    last = max(n for n in range(len(made.tokens)) if made.supervised[n] and not made.supervised[n - 1])
    assert prompt == made.tokens[:last], "generation starts where training starts to supervise"


@families
def test_a_visual_and_a_system_message_fit_every_template(name):
    tokenizer = family_tokenizer(FAMILIES[name])
    visual, ends = add_visual_token(tokenizer), end_of_turn_ids(tokenizer)
    chat = turns(
        [{"type": "volume"}, {"type": "text", "text": "Which side?"}], "left", "Sure?", "yes", system="Be exact."
    )
    made = tokenize_chat(tokenizer, chat, [5], visual, ends)
    text = tokenizer.decode(made.tokens)
    assert made.tokens.count(visual) == 5 and "Be exact." in text
    assert text.index("Be exact.") < text.index("<|visual|>") < text.index("Which side?") < text.index("left")
    literal = turns(f"<|visual|>{FAMILIES[name].special[0]}", "yes")
    injected = tokenize_chat(tokenizer, literal, [], visual, ends)
    assert visual not in injected.tokens, "a report cannot inject a placeholder"
    single = tokenize_chat(tokenizer, turns("nothing", "yes"), [], visual, ends)
    end = tokenizer.convert_tokens_to_ids(FAMILIES[name].special[0])
    assert injected.tokens.count(end) == single.tokens.count(end), "nor end a turn"


@families
def test_packed_equals_alone_trains_stops_and_is_saved_equal(name, tmp_path):
    processor = a_processor(name)
    model = a_model(name, processor, tmp_path / "decoder")
    image, volume = processor.patch(an_image(1)), processor.patch(a_volume(2))
    rows = [
        processor.render(turns([{"type": "image"}, {"type": "text", "text": "Is there a nodule?"}], "yes"), [image]),
        processor.render(turns([{"type": "volume"}, {"type": "text", "text": "Which side?"}], "left"), [volume]),
        processor.render(turns("Is there a pleural effusion? " * 6, "moderate"), []),
    ]
    pack = collate([(str(n), [row]) for n, row in enumerate(rows)])
    with torch.no_grad():
        together = model(**pack.model_inputs()).logits[0]
        alone = torch.cat([model(**collate([("x", [row])]).model_inputs()).logits[0] for row in rows])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    leaking = {k: v for k, v in pack.model_inputs().items() if k not in ("cu_seqlens", "position_ids")}
    with torch.no_grad():
        leaked = model(**leaking).logits[0]
    assert (leaked - alone)[len(rows[0].tokens) :].abs().max() > 1e-2, "samples that see each other are noticed"

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(**pack.model_inputs()).logits[0], pack.targets, ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None for p in model.parameters())

    model.eval()
    save_checkpoint(tmp_path / "saved", model, processor)
    loaded, back = load_checkpoint(tmp_path / "saved")
    assert torch.equal(loaded(**pack.model_inputs()).logits, model(**pack.model_inputs()).logits)
    assert back.end_ids == processor.end_ids == frozenset(loaded.generation_config.eos_token_id)
    assert (
        back.render(turns("left", "yes"), []).tokens.tolist()
        == processor.render(turns("left", "yes"), []).tokens.tolist()
    )


@families
def test_generation_stops_at_the_familys_end_of_turn(name, tmp_path):
    processor = a_processor(name)
    model = a_model(name, processor, tmp_path / "decoder")
    end = processor.tokenizer.convert_tokens_to_ids(FAMILIES[name].special[0])
    inputs = processor(
        messages=[turns([{"type": "image"}, {"type": "text", "text": "Side?"}])], visuals=[[an_image(1)]]
    )
    head = model.get_output_embeddings()
    with torch.no_grad():  # a decoder that writes its end of turn whatever comes before
        states = model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
        head.weight = torch.nn.Parameter(torch.zeros_like(head.weight))
        head.weight[end] = states
        answer = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert answer[0, inputs["input_ids"].shape[1] :].tolist() == [end]


@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_leave_the_old_rows_alone(tied, tmp_path):
    torch.manual_seed(1)
    config = AutoConfig.for_model(**FAMILIES["llama3"].config, vocab_size=300, tie_word_embeddings=tied)
    decoder = AutoModelForCausalLM.from_config(config)
    before = {"input": decoder.get_input_embeddings().weight.clone(), "output": decoder.lm_head.weight.clone()}
    assert grow_vocabulary(decoder, 303) == 3
    after = {"input": decoder.get_input_embeddings().weight, "output": decoder.lm_head.weight}
    for side, old in before.items():
        assert after[side].shape[0] == 303
        assert torch.equal(after[side][:300], old)
        for row in after[side][300:]:
            torch.testing.assert_close(row, old.mean(dim=0), atol=1e-7, rtol=0)
    assert (decoder.lm_head.weight is decoder.get_input_embeddings().weight) == tied
    assert not torch.equal(after["input"][300], after["output"][300]) or tied
    decoder.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again.lm_head.weight, decoder.lm_head.weight)


def test_rows_that_the_embedding_has_to_spare_are_used(tmp_path):
    processor = a_processor("qwen3")
    size = vocabulary_size(processor.tokenizer)
    config = AutoConfig.for_model(**FAMILIES["qwen3"].config, vocab_size=size + 29)
    decoder = AutoModelForCausalLM.from_config(config)
    decoder.save_pretrained(tmp_path)
    model = build_model(VISION, {"hidden_size": 64}, {"pretrained": str(tmp_path)}, size, processor.visual_token_id)
    assert model.config.text_config.vocab_size == size + 29
    for name, old in decoder.state_dict().items():
        assert torch.equal(model.text.state_dict()[name], old), name


def test_ids_with_gaps_get_rows_for_the_highest():
    tokenizer = family_tokenizer(FAMILIES["qwen3"])
    assert vocabulary_size(tokenizer) == len(tokenizer)
    visual = add_visual_token(tokenizer)
    assert vocabulary_size(tokenizer) == visual + 1


def test_a_missing_template_is_said_with_the_mend(tmp_path):
    tokenizer = family_tokenizer(FAMILIES["llama3"])
    tokenizer.chat_template = None
    visual = add_visual_token(tokenizer)
    with pytest.raises(ValueError, match=r"no chat template .*model\.tokenizer\.chat_template: chatml"):
        tokenize_chat(tokenizer, turns("left", "yes"), [], visual, frozenset())
    with pytest.raises(ValueError, match=r"no chat template"):
        end_of_turn_ids(tokenizer)
    with pytest.raises(ValueError, match=r"'no\.jinja', which is no file .*write chatml"):
        set_chat_template(tokenizer, "no.jinja")
    before = len(tokenizer)
    set_chat_template(tokenizer, "chatml")
    assert len(tokenizer) == before + 2
    ends = end_of_turn_ids(tokenizer)
    made = tokenize_chat(tokenizer, turns("left", "yes"), [], visual, ends)
    text = tokenizer.decode([t for t, flag in zip(made.tokens, made.supervised, strict=True) if flag])
    assert text == "yes<|im_end|>" and tokenizer.convert_tokens_to_ids("<|im_end|>") in ends
    path = tmp_path / "own.jinja"
    path.write_text("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + eos_token }}{% endfor %}")
    set_chat_template(tokenizer, str(path))
    assert tokenizer.convert_ids_to_tokens(end_of_turn_ids(tokenizer)) == [tokenizer.eos_token]


def test_a_template_that_refuses_the_order_of_turns_is_said():
    tokenizer = family_tokenizer(FAMILIES["gemma2"])
    visual = add_visual_token(tokenizer)
    wrong = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(
        ValueError, match=r"refuses messages of roles \['user', 'user'\].*must alternate.*order of turns"
    ):
        tokenize_chat(tokenizer, wrong, [], visual, end_of_turn_ids(tokenizer))


def test_a_router_loss_is_refused(processor):
    text = {"config": {**FAMILIES["mixtral"].config, "output_router_logits": True}}
    with pytest.raises(ValueError, match=r"output_router_logits.*depend on how samples are packed.*false"):
        build_model(VISION, {"hidden_size": 64}, text, vocabulary_size(processor.tokenizer), processor.visual_token_id)
