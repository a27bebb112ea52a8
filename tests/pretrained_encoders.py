"""What every pretrained encoder must do inside a model of medvlm."""

from __future__ import annotations

import torch
from conftest import a_chat, a_volume, an_image

from medvlm.data_recipes.packing import collate
from medvlm.model import MedVLMProcessor, build_model, load_checkpoint, save_checkpoint
from medvlm.model.loading import build_config


def medvlm_with(vision, processor):
    """A tiny model of medvlm whose encoder ``vision`` names."""
    torch.manual_seed(0)
    text = {
        "model_type": "qwen3", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "intermediate_size": 64,
    }  # fmt: skip
    parts = (vision, {"hidden_size": 48}, {"config": text}, len(processor.tokenizer), processor.visual_token_id)
    model = build_model(*parts)
    assert build_config(*parts).vision_config.to_dict() == model.config.vision_config.to_dict()
    return model.eval()


def packs(processor):
    """Two samples of pictures and volumes: each alone, both together; and one of text only."""
    visuals = [an_image(1, 40, 48), a_volume(2)]
    kinds = ["image", "volume"]
    rendered = [
        processor.render(a_chat([kind], "Is there a nodule?", "yes"), [processor.patch(visual)])
        for kind, visual in zip(kinds, visuals, strict=True)
    ]
    text = processor.render(a_chat([], "Is there a nodule?", "yes"), [])
    return (
        [collate([("0", [rendered[0]])]), collate([("1", [rendered[1]])])],
        collate([("0", [rendered[0]]), ("1", [rendered[1]])]),
        collate([("2", [text])]),
    )


def settings(model):
    return {key: value for key, value in model.config.vision_config.to_dict().items() if key != "dtype"}


def check_in_medvlm(vision, processor, folder):
    """Packed equals alone; equal logits after save and load; every parameter of the encoder is trained."""
    model = medvlm_with(vision, processor)
    alone, together, text_only = packs(processor)
    with torch.no_grad():
        expected = torch.cat([model(**pack.model_inputs()).logits[0] for pack in alone])
        logits = model(**together.model_inputs()).logits[0]
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    save_checkpoint(folder, model, processor)
    again, _ = load_checkpoint(folder)
    with torch.no_grad():
        assert torch.equal(again(**together.model_inputs()).logits[0], logits)
    assert settings(again) == settings(model)
    again.train()
    again(**text_only.model_inputs()).logits.sum().backward()
    assert not [name for name, value in again.vision.named_parameters() if value.grad is None]
    stored = {name: value.clone() for name, value in again.vision.named_buffers()}
    before = {name: value.detach().clone() for name, value in again.vision.named_parameters()}
    optimizer = torch.optim.SGD(again.parameters(), lr=0.1)
    optimizer.zero_grad()
    found = again(**together.model_inputs(), labels=together.tokens[None])
    found.loss.backward()
    optimizer.step()
    moved = [name for name, value in again.vision.named_parameters() if not torch.equal(value, before[name])]
    assert len(moved) > len(before) / 2
    assert all(torch.equal(value, stored[name]) for name, value in again.vision.named_buffers())


def sized_processor(processor, patch_size):
    budgets = {"image": 64, "volume": 144, "video": 64}
    return MedVLMProcessor(
        processor.tokenizer, patch_size=patch_size, max_patches=budgets, max_depth={"volume": 4, "video": 4}
    )
