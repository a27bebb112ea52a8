"""Putting a model together from parts: a pretrained decoder keeps its weights and its own tokenizer."""

from pathlib import Path

import pytest
import torch
from conftest import TEXTS
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from medvlm.model.tokenizer import VISUAL_TOKEN, train_tokenizer
from medvlm.train.assemble import first_config, first_model, first_processor
from medvlm.train.config import load_curriculum
from medvlm.train.run import main

YAML = """
name: parts
output_dir: runs/parts
model:
  vision: {{hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64}}
  projector: {{hidden_size: 48}}
  text: {{pretrained: {decoder}}}
  tokenizer: {{pretrained: {decoder}}}
data: {{root: .}}
stages:
  - {{name: align, mixture: [{{manifest: x.jsonl}}], learning_rate: {{projector: 1e-3}}, steps: 1}}
"""


@pytest.fixture
def decoder(tmp_path) -> Path:
    """A decoder and its tokenizer as the hub would hold them: no placeholder for visuals, a vocabulary of its own."""
    tokenizer = train_tokenizer(TEXTS, 380)
    text = tokenizer.backend_tokenizer.to_str().replace(VISUAL_TOKEN, "<|other|>")
    tokenizer = type(tokenizer)(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(text),
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        chat_template=tokenizer.chat_template,
    )
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, intermediate_size=64, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "decoder")
    tokenizer.save_pretrained(tmp_path / "decoder")
    return tmp_path / "decoder"


def test_a_pretrained_decoder_keeps_its_weights(decoder, tmp_path):
    path = tmp_path / "parts.yaml"
    path.write_text(YAML.format(decoder=decoder))
    curriculum = load_curriculum(path)
    model, processor = first_model(curriculum)
    original = AutoModelForCausalLM.from_pretrained(decoder)
    size = len(AutoTokenizer.from_pretrained(decoder))
    assert len(processor.tokenizer) == size + 1, "only the placeholder is new"
    assert processor.visual_token_id == size
    assert model.text.get_input_embeddings().num_embeddings == size + 1
    for name, before in original.state_dict().items():
        after = model.text.state_dict()[name]
        assert torch.equal(after[:size] if before.shape[0] == size else after, before), name
    ids = torch.tensor([AutoTokenizer.from_pretrained(decoder)(TEXTS[0])["input_ids"]])
    with torch.no_grad():
        ours, theirs = model.eval()(input_ids=ids).logits[..., :size], original.eval()(input_ids=ids).logits
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_the_plan_needs_no_weights(decoder, tmp_path):
    path = tmp_path / "parts.yaml"
    path.write_text(YAML.format(decoder=decoder))
    curriculum = load_curriculum(path)
    (decoder / "model.safetensors").unlink()
    processor = first_processor(curriculum)
    assert first_config(curriculum, processor).text_config.vocab_size == len(processor.tokenizer)


def test_a_decoder_that_is_not_there_is_said(tmp_path, capsys):
    path = tmp_path / "parts.yaml"
    path.write_text(YAML.format(decoder="./nowhere").replace("runs/parts", str(tmp_path / "run")))
    assert main([str(path)]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_what_cannot_be_read_is_named_with_its_setting(decoder, tmp_path):
    path = tmp_path / "parts.yaml"
    path.write_text(YAML.format(decoder=decoder))
    for part in ("text", "tokenizer"):  # ids that no cache holds; tests have no network
        curriculum = load_curriculum(path, [f"model.{part}={{pretrained: nobody/nothing}}"])
        with pytest.raises(OSError, match=rf"model.{part}.pretrained 'nobody/nothing'.*Mend: check the name") as told:
            first_config(curriculum, first_processor(curriculum))
        assert "\n" not in str(told.value)
