"""3D contrastive learning through the real curriculum: 64 virtual CT scans and their reports find each other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvlm.data_recipes.manifest import write_manifest
from medvlm.data_recipes.phantoms.ct import draw_spacing, render_ct
from medvlm.data_recipes.phantoms.language import report
from medvlm.data_recipes.phantoms.patient import draw_patient, streams
from medvlm.data_recipes.sample import Sample, Turn, VisualRef
from medvlm.eval.embeddings import embed_samples
from medvlm.eval.scorers.retrieval import median_rank, recall_at
from medvlm.model import load_checkpoint
from medvlm.train.config import load_curriculum
from medvlm.train.distributed import connect, disconnect
from medvlm.train.run_stages import run_curriculum

YAML = """\
name: volumes
output_dir: OUTPUT
seed: 1
model:
  vision: {hidden_size: 64, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 128, patch_size: [8, 8, 8]}
  projector: {hidden_size: 64, merge: [1, 2, 2]}
  text:
    config: {model_type: qwen3, hidden_size: 64, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
             head_dim: 32, intermediate_size: 128, max_position_embeddings: 1024, tie_word_embeddings: true}
  tokenizer: {train: {vocab_size: 400}}
  processor: {max_patches: {volume: 64}, max_depth: {volume: 32}}
data: {root: ROOT, tokens_per_pack: 16384, patches_per_pack: 16384}
engine: {kind: accelerate, device: cpu}
stages:
  - name: clip
    objective: contrastive
    mixture: [{manifest: train.jsonl}]
    learning_rate: {vision: 1e-3, text: 1e-3, heads: 1e-3}
    contrastive: {size: 64, text: mean, temperature: 0.04}
    steps: 125
    warmup_steps: 5
"""


def write_patients(folder: Path, count: int) -> list[Sample]:
    """CT volumes of ``count`` virtual patients of whom no two have the same report."""
    samples: dict[str, Sample] = {}
    index = 0
    while len(samples) < count:
        generators = streams(0, index)
        patient = draw_patient(index, split="train", rng=generators["patient"])
        index += 1
        said = report(patient.findings)
        if said in samples:
            continue
        spacing = draw_spacing(generators["ct"])
        np.save(folder / f"{index}.npy", render_ct(patient, spacing, generators["ct"]).astype(np.float32))
        options = {"unit": "HU", "modality": "CT", "spacing_mm": list(spacing), "orientation": "SPL"}
        shown = VisualRef(kind="volume", path=f"{index}.npy", options=options)
        samples[said] = Sample(
            sample_id=patient.patient_id, patient_id=patient.patient_id, study_id=patient.patient_id,
            source="phantoms", licence="Apache-2.0", split="train",
            turns=(Turn(role="user", content=(shown,)), Turn(role="assistant", content=(said,))),
        )  # fmt: skip
    write_manifest(folder / "train.jsonl", samples.values())
    return list(samples.values())


@pytest.mark.slow
def test_scans_and_reports_find_each_other(tmp_path):
    samples = write_patients(tmp_path, 64)
    config = tmp_path / "volumes.yaml"
    config.write_text(YAML.replace("ROOT", str(tmp_path)).replace("OUTPUT", str(tmp_path / "run")), encoding="utf-8")
    curriculum = load_curriculum(config)
    try:
        checkpoint = run_curriculum(curriculum, connect("cpu"))
    finally:
        disconnect()
    model, processor = load_checkpoint(checkpoint)
    pairs = embed_samples(model, processor, samples, tmp_path)
    similarity = pairs.similarity()
    found = recall_at(similarity, 1, pairs.right()), recall_at(similarity.T, 1, pairs.right())
    assert min(found) >= 0.9, f"R@1 of texts by volume and of volumes by text: {found}"
    assert median_rank(similarity) == 1
    # It is the volumes that tell them apart: shown those of other patients, it finds next to nothing.
    turned = [replace(sample, turns=(other.turns[0], sample.turns[1])) for sample, other in
              zip(samples, samples[1:] + samples[:1], strict=True)]  # fmt: skip
    assert recall_at(embed_samples(model, processor, turned, tmp_path).similarity(), 1) <= 0.1
