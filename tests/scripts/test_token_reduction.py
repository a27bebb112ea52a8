"""The bench of token reduction: its rules are what it says, and one run from a checkpoint to the table."""

import json

import numpy as np
import pytest
import torch
from conftest import TEXTS, a_volume, tiny_model

from medvlm.data_recipes.sample import Question, Sample, Turn, VisualRef, to_json
from medvlm.model import MedVLMProcessor, save_checkpoint
from medvlm.model.batch import VOLUME
from medvlm.model.tokenizer import train_tokenizer
from medvlm.scripts.bench.token_reduction import main
from medvlm.scripts.bench.token_rules import PooledTokens, Rule, blocks_of, drift_kept, pooling_errors, rules


def test_blocks_and_their_means():
    blocks = blocks_of((3, 2, 2), (2, 1, 2))
    assert blocks.tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3]
    tokens = np.arange(12, dtype=np.float32)[:, None]
    assert pooling_errors(tokens, blocks).max() == pytest.approx(2.5 / 2), "0, 1, 4 and 5 have the mean 2.5"


def test_pooled_tokens_are_the_means_of_their_blocks():
    features = torch.randn(2 * 12, 5)
    size, block = (3, 2, 2), (2, 1, 2)
    blocks = torch.from_numpy(blocks_of(size, block))
    first = torch.tensor([i == int((blocks == b).nonzero()[0]) for i, b in enumerate(blocks.tolist())]).repeat(2)

    class Plain(torch.nn.Module):
        def forward(self, features, grids, kept, axis_kinds):
            return features[kept]

    pooled = PooledTokens(Plain(), (1, 1, 1), block)(
        features, torch.tensor([size, size]), first, torch.tensor([VOLUME] * 2)
    )
    expected = [features[half : half + 12][blocks == b].mean(dim=0) for half in (0, 12) for b in range(4)]
    torch.testing.assert_close(pooled, torch.stack(expected))


def test_drift():
    kept = {rule.name: drift_kept(rule) for rule in rules([0.1], [4], [])}
    assert kept["none"] == 1 and kept["Hulu-Med"] == 0
    assert kept["ours, cell 4, bound 0.1"] >= 1 - 0.1 / (19 * 0.045)
    assert drift_kept(Rule(name="", block=(2, 1, 1))) == pytest.approx(18.5 / 19)


def test_from_a_checkpoint_to_the_table(tmp_path, capsys):
    processor = MedVLMProcessor(
        train_tokenizer(TEXTS, 400), patch_size=(2, 8, 8), max_patches={"volume": 144}, max_depth={"volume": 8}
    )
    save_checkpoint(tmp_path / "plain", tiny_model(processor), processor)
    reduced = MedVLMProcessor(
        processor.tokenizer, patch_size=(2, 8, 8), max_patches={"volume": 144}, max_depth={"volume": 8},
        reduction={"bound": 0.3},
    )  # fmt: skip
    save_checkpoint(tmp_path / "reduced", tiny_model(reduced), reduced)
    rows = []
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.repeat(a_volume(number).voxels[:1], 12, axis=0))
        ref = VisualRef(kind="volume", path=f"{number}.npy", options={"unit": "HU", "modality": "CT"})
        rows.append(
            to_json(
                Sample(
                    sample_id=f"s{number}", patient_id=f"p{number}", study_id=f"t{number}", source="test",
                    licence="CC0", split="test", turns=(Turn(role="user", content=(ref, "Is there a nodule?")),),
                    question=Question(kind="closed", answers=("yes",), choices=("yes", "no")),
                )
            )
        )  # fmt: skip
    (tmp_path / "test_questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = [
        "--checkpoint", tmp_path / "plain", "--data", tmp_path, "--trained", tmp_path / "reduced",
        "--real", tmp_path / "0.npy=HU", "--bounds", "0.1", "--out", tmp_path / "out",
    ]  # fmt: skip
    assert main([str(part) for part in asked]) == 0, capsys.readouterr().err
    report = json.loads((tmp_path / "out" / "token_reduction.json").read_text())
    found = {row["rule"]: row for row in report["phantoms"]}
    assert len(found) == 7 and found["none"]["kept"] == 1 and found["none"]["questions"] == 3
    # Twelve equal slices: one layer of four stays, and nothing is lost by it.
    assert found["ours, cell 4, bound 0.1"]["kept"] == 0.25 == found["trained with: bound 0.3"]["kept"]
    assert found["ours, cell 4, bound 0.1"]["voxel_error_max"] == 0
    assert all(row["batch_1_differs"] == 0 and row["batch_1_asked"] == 3 for row in found.values())
    assert list(report["real"]) == ["0.npy"] and {"date", "hardware", "versions"} <= set(report)
    assert "| none | 100.0% |" in (tmp_path / "out" / "token_reduction.md").read_text()
    assert main(["--checkpoint", str(tmp_path / "plain"), "--data", str(tmp_path / "out"), "--out", str(tmp_path)]) == 2
