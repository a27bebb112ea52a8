"""A question whose answer is in the picture alone: on which side is the bright spot? Four answers, each as frequent."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image as Pil

SIDES = {"left": (16, 5), "right": (16, 27), "top": (5, 16), "bottom": (27, 16)}

YAML = """\
name: spots
output_dir: OUTPUT
seed: 1
model:
  vision: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64, patch_size: [1, 8, 8],
           initializer_range: 0.15}
  projector: {hidden_size: 48, merge: [1, 4, 4], initializer_range: 0.15}
  text:
    config: {model_type: qwen3, hidden_size: 48, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
             head_dim: 24, intermediate_size: 96, max_position_embeddings: 512, tie_word_embeddings: true}
  tokenizer: {train: {vocab_size: 320}}
  processor: {max_patches: {image: 16}}
data: {root: ROOT, tokens_per_pack: 1024, patches_per_pack: 1024}
engine: {kind: accelerate, device: cpu}
stages:
  - name: format
    mixture: [{manifest: format.jsonl}]
    learning_rate: {vision: 3e-3, projector: 3e-3, text: 3e-3}
    schedule: constant
    steps: 80
  - name: rewards
    objective: reinforcement
    mixture: [{manifest: questions.jsonl}]
    learning_rate: {vision: 3e-3, projector: 3e-3, text: 3e-3}
    schedule: constant
    reinforcement: {group_size: 8, max_new_tokens: 6, prompts_at_once: 32}
    steps: 45
"""

FROM_CHECKPOINT = YAML[: YAML.index("model:")] + "model: {pretrained: CHECKPOINT}\n" + YAML[YAML.index("data:") :]
FROM_CHECKPOINT = FROM_CHECKPOINT[: FROM_CHECKPOINT.index("  - name: format")] + YAML[YAML.index("  - name: rewards") :]
"""The second stage alone, from the checkpoint of the first."""


def write_spots(folder: Path, *, pictures: int = 64, seed: int = 0) -> None:
    """``questions.jsonl`` with the true answers, and ``format.jsonl`` of which one answer in three is right: a model
    that has learnt them writes one of the four words, and seldom the right one."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(seed)
    names = list(SIDES)
    questions, formats = [], []
    for number in range(pictures):
        side = names[number % 4]
        row, column = np.array(SIDES[side]) + generator.integers(-2, 3, 2)
        down, across = np.mgrid[:32, :32]
        spot = 220 * np.exp(-((down - row) ** 2 + (across - column) ** 2) / 18)
        pixels = (spot + generator.integers(0, 30, (32, 32))).clip(0, 255).astype(np.uint8)
        Pil.fromarray(pixels).save(folder / f"{number}.png")
        questions.append(question(number, side))
        wrong = names[(number + 1 + (number // 12) % 3) % 4]
        formats.append(conversation(number, wrong if (number // 4) % 3 else side))
    for name, rows in (("questions", questions), ("format", formats)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _row(number: int, name: str) -> dict:
    content = [{"type": "image", "path": f"{number}.png"}, {"type": "text", "text": "Where is the spot?"}]
    return {
        "sample_id": f"{name}{number}", "patient_id": f"p{number}", "study_id": f"p{number}", "source": "spots",
        "licence": "CC0-1.0", "split": "train", "messages": [{"role": "user", "content": content}],
    }  # fmt: skip


def question(number: int, side: str) -> dict:
    asked = {"kind": "closed", "answers": [side], "choices": list(SIDES), "topic": "side"}
    return _row(number, "q") | {"question": asked}


def conversation(number: int, answer: str) -> dict:
    row = _row(number, "f")
    return row | {"messages": [*row["messages"], {"role": "assistant", "content": answer}]}


def write_config(path: Path, root: Path) -> str:
    """The curriculum, with its run folder beside it."""
    path.write_text(YAML.replace("ROOT", str(root)).replace("OUTPUT", str(path.with_suffix(""))))
    return str(path)
