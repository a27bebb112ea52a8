"""A whole curriculum of five stages on virtual patients, small enough for a test."""

from __future__ import annotations

from pathlib import Path

YAML = """\
name: tiny
output_dir: OUTPUT
seed: 5
model:
  vision: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64,
           patch_size: [2, 16, 16]}
  projector: {hidden_size: 48, merge: [1, 2, 2]}
  text:
    config: {model_type: qwen3, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
             head_dim: 16, intermediate_size: 64, max_position_embeddings: 1024, tie_word_embeddings: true}
  tokenizer: {train: {vocab_size: 400}}
  processor: {max_patches: {image: 36, volume: 64, video: 64}, max_depth: {volume: 8, video: 4}}
data: {root: ROOT, tokens_per_pack: 512, patches_per_pack: 512}
engine: {kind: accelerate, device: cpu}
stages:
  - name: align
    mixture: [{manifest: train_captions_2d.jsonl}]
    learning_rate: {projector: 1e-3}
    steps: 2
  - name: instruct-2d
    mixture: [{manifest: train_2d.jsonl}, {manifest: train_text.jsonl}]
    learning_rate: {projector: 1e-3, text: 1e-3}
    steps: 4
    packs_per_step: 2
    save_every: 1
  - name: instruct-3d
    mixture: [{manifest: train_3d.jsonl}, {manifest: train_video.jsonl}]
    learning_rate: {vision: 1e-3, projector: 1e-3, text: 1e-3}
    steps: 2
  - name: lora-sft
    mixture: [{manifest: train_sft.jsonl}]
    learning_rate: {projector: 1e-3}
    lora: {rank: 2, targets: [vision.mlp, text.attention], dropout: 0.1, learning_rate: 1e-2}
    steps: 2
  - name: lora-dpo
    objective: preference
    mixture: [{manifest: train_pairs.jsonl}]
    lora: {rank: 2, targets: [text.attention, text.mlp], learning_rate: 1e-2}
    steps: 2
"""
NAMES = ["align", "instruct-2d", "instruct-3d", "lora-sft", "lora-dpo"]


def write_config(path: Path, root: Path, old: str = "", new: str = "") -> str:
    assert not old or YAML.count(old) == 1, f"{old!r} stands {YAML.count(old)} times in the example"
    text = YAML.replace(old, new) if old else YAML
    path.write_text(text.replace("ROOT", str(root)).replace("OUTPUT", str(path.with_suffix(""))), encoding="utf-8")
    return str(path)
