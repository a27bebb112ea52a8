"""A resolution ladder: one manifest, few tokens in the first stage and many in the second."""

import json
from pathlib import Path

import pytest

from medvlm.data_recipes.phantoms.write import write_phantoms
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.sample import Sample, read_jsonl
from medvlm.model.loading import load_processor
from medvlm.model.processing import MedVLMProcessor
from medvlm.model.tokenizer import train_tokenizer
from medvlm.train import run
from medvlm.train.config import fingerprint, load_curriculum
from medvlm.train.stage_processor import processor_of_stage

YAML = """\
name: ladder
output_dir: OUTPUT
model:
  vision: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 64,
           patch_size: [2, 16, 16]}
  projector: {hidden_size: 48, merge: [1, 2, 2]}
  text:
    config: {model_type: qwen3, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
             head_dim: 16, intermediate_size: 64, max_position_embeddings: 1024, tie_word_embeddings: true}
  tokenizer: {train: {vocab_size: 300}}
  processor: {max_patches: {image: 16, volume: 16, video: 16}, max_depth: {volume: 8, video: 4}}
data: {root: ROOT, tokens_per_pack: 512, patches_per_pack: 1024, cache: true}
engine: {kind: accelerate, device: cpu}
stages:
  - name: low
    mixture: [{manifest: train_captions_3d.jsonl}]
    learning_rate: {projector: 1e-3}
    steps: 2
  - name: high
    mixture: [{manifest: train_captions_3d.jsonl}]
    processor: {max_patches: {volume: 128}, max_depth: {volume: 16}, intensity: {hu_windows: medgemma}}
    learning_rate: {projector: 1e-3}
    steps: 2
  - name: after
    mixture: [{manifest: train_captions_3d.jsonl}]
    lora: {rank: 2, targets: [text.attention]}
    steps: 1
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ladder") / "data"
    write_phantoms(folder, patients=6, seed=3)
    return folder


def write_config(path: Path, root: Path, old: str = "", new: str = "") -> str:
    assert not old or YAML.count(old) == 1
    text = YAML.replace(old, new) if old else YAML
    path.write_text(text.replace("ROOT", str(root)).replace("OUTPUT", str(path.with_suffix(""))), encoding="utf-8")
    return str(path)


def tokens_of_one_volume(checkpoint: Path, root: Path) -> int:
    processor = load_processor(checkpoint)
    sample = next(row for row in read_jsonl(root / "train_captions_3d.jsonl") if isinstance(row, Sample))
    return processor.patch(read(sample.visuals()[0], root)).tokens


def test_the_second_stage_sees_the_same_files_with_more_tokens(phantoms, tmp_path):
    assert run.main([write_config(tmp_path / "ladder.yaml", phantoms)]) == 0
    stages = tmp_path / "ladder" / "stages"
    folders = [stages / name for name in ("00-start", "01-low", "02-high", "03-after")]
    tokens = [tokens_of_one_volume(folder / "checkpoint", phantoms) for folder in folders]
    assert tokens[0] == tokens[1] == 4 and tokens[2] == tokens[3] > 4 * tokens[1]
    rows = [json.loads(line) for folder in folders[1:3] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    shares = [row["visual_tokens"] / row["supervised_tokens"] for row in rows]
    assert len(shares) == 4 and min(shares[2:]) > 4 * max(shares[:2]), "what the loader itself gave"
    low, high = (load_processor(folder / "checkpoint") for folder in folders[1:3])
    assert low.max_patches == {"image": 16, "volume": 16, "video": 16}
    assert high.max_patches == {"image": 16, "volume": 128, "video": 16} and high.max_depth["video"] == 4
    assert (low.intensity["hu_windows"], high.intensity["hu_windows"]) == (["lung", "soft_tissue", "bone"], "medgemma")


def test_a_wrong_setting_of_a_late_stage_is_said_before_the_first_trains(phantoms, tmp_path, capsys):
    config = write_config(tmp_path / "wrong.yaml", phantoms, "hu_windows: medgemma", "hu_windows: thorax")
    assert run.main([config]) == 2
    said = capsys.readouterr().err
    assert "stage 'high'" in said and "'thorax'" in said and "'medgemma'" in said
    assert not (tmp_path / "wrong" / "stages" / "01-low").exists()


def test_what_belongs_to_the_weights_cannot_change():
    processor = MedVLMProcessor(train_tokenizer(["a"], 300), intensity={"percentiles": [1, 99]})
    with pytest.raises(ValueError, match=r"processor\.patch_size cannot change between stages; use one of max_patches"):
        processor_of_stage(processor, {"patch_size": [1, 8, 8]})
    assert processor_of_stage(processor, {}) is processor
    changed = processor_of_stage(processor, {"intensity": {"radiograph": "percentile"}, "max_patches": {"image": 9}})
    assert changed.intensity["percentiles"] == [1, 99] and changed.intensity["radiograph"] == "percentile"
    assert changed.max_patches["image"] == 9 and changed.max_patches["volume"] == processor.max_patches["volume"]
    assert changed.visual_settings() != processor.visual_settings()


def test_stages_without_the_setting_keep_the_fingerprint_they_had(phantoms, tmp_path):
    curriculum = load_curriculum(write_config(tmp_path / "a.yaml", phantoms))
    other = load_curriculum(tmp_path / "a.yaml", ["stages.high.processor.max_patches.volume=64"])
    assert fingerprint(curriculum, "low") == fingerprint(other, "low")
    assert fingerprint(curriculum, "high") != fingerprint(other, "high")
