"""Auxiliary losses: sums that no split changes, a head that learns, labels and stages that are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import tiny_model
from torch.nn import functional as F

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import write_manifest
from medvlm.data_recipes.packing import collate
from medvlm.data_recipes.phantoms.ct import draw_spacing, render_ct
from medvlm.data_recipes.phantoms.labels import labels
from medvlm.data_recipes.phantoms.patient import CHEST_KINDS, draw_patient, streams
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import Sample, Turn, VisualRef
from medvlm.data_recipes.typed_yaml import BadConfig
from medvlm.model import load_checkpoint
from medvlm.model.head_pooling import encode_visuals
from medvlm.train.assemble import set_trainable
from medvlm.train.config import AuxiliaryLoss, ContrastiveConfig, LearningRates, Lora, Source, Stage, load_curriculum
from medvlm.train.data import _accept
from medvlm.train.distributed import connect, disconnect
from medvlm.train.loop import items, mean
from medvlm.train.objectives.auxiliary import WithAuxiliaries, make_auxiliary
from medvlm.train.objectives.supervised import Supervised
from medvlm.train.run_stages import run_curriculum

NAMES = ("nodule", "mass")
LOSSES = (
    AuxiliaryLoss(kind="findings", findings=NAMES, positive_weights={"mass": 3.0}, weight=2.0),
    AuxiliaryLoss(kind="progression", findings=NAMES, pooling="attention"),
    AuxiliaryLoss(kind="triplets", findings=NAMES, positions=("left", "right"), size=16, layers=2, weight=0.5),
    AuxiliaryLoss(kind="unpaired", findings=NAMES, size=16, pooling="attention", weight=1.5),
)
ALL = LearningRates(vision=1e-3, projector=1e-3, text=1e-3, heads=1e-3)


def a_stage(**changes: object) -> Stage:
    settings = {"name": "s", "mixture": (Source(manifest="m"),), "steps": 1, "learning_rate": ALL, "auxiliary": LOSSES}
    return Stage(**{**settings, **changes})  # type: ignore[arg-type]


def a_sample(name: str, files: list[str], said: str = "left", **metadata: object) -> Sample:
    refs = [VisualRef(kind="image", path=file) for file in files]
    turns = (Turn(role="user", content=(*refs, "Which side?")), Turn(role="assistant", content=(said,)))
    return Sample(
        sample_id=name, patient_id="p", study_id="s", source="fixture", licence="CC0-1.0", split="train",
        turns=turns, metadata=metadata,
    )  # fmt: skip


ROWS = [
    a_sample("0", ["a.png"], findings={"nodule": True, "mass": None, "other": True}),
    a_sample("1", [], findings={"nodule": True}),  # shows nothing: only an unpaired loss counts its labels
    a_sample("2", ["a.png", "b.png"], findings={"nodule": False, "mass": True}, progression={"mass": "worse"}),
    a_sample("3", ["b.png"], triplets=[
        {"entity": "nodule", "present": True, "position": "left"}, {"entity": "mass", "present": False},
        {"entity": "rib", "present": True, "position": "left"},
        {"entity": "nodule", "present": True, "position": "hip"},
    ]),
    a_sample("4", ["a.png"]),
    a_sample("5", [], "There is no mass in the left upper zone.", findings={"mass": False, "other": True}),
]  # fmt: skip


@pytest.fixture
def packs(processor, tmp_path):
    from PIL import Image as Pil

    generator = np.random.default_rng(0)
    for name in "ab":
        Pil.fromarray(generator.integers(0, 255, (60, 80), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    renderer = Renderer(processor, tmp_path)

    def of(*split):
        return [collate([(ROWS[i].sample_id, renderer.sides(ROWS[i])) for i in part], [ROWS[i] for i in part])
                for part in split]  # fmt: skip

    return of


def objective(processor, losses=LOSSES) -> WithAuxiliaries:
    return WithAuxiliaries(Supervised(), [(make_auxiliary(loss, processor.tokenizer), loss.weight) for loss in losses])


def test_no_split_changes_the_gradient(processor, packs):
    model = tiny_model(processor)
    set_trainable(model.train(), a_stage())
    found = []
    # Packs without a text, without a visual, and without any label.
    for split in ([[0, 1, 2, 3, 4, 5]], [[1], [3, 0], [2, 5], [4]]):
        model.zero_grad(set_to_none=True)
        both, made = objective(processor), packs(*split)
        counts = items(both, made)
        assert counts[1:] == [3, 1, 2, 1, 3, 2]
        total = torch.zeros(())
        for pack in made:
            loss = mean(both, both(model, pack), counts)
            loss.backward()
            total += loss.detach()
            assert all(p.grad is not None for p in model.parameters() if p.requires_grad), "ranks would wait"
        found.append((total.item(), {name: p.grad.clone() for name, p in model.named_parameters()}))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    for name, expected in found[0][1].items():
        scale = max(float(expected.abs().max()), 1e-3)
        torch.testing.assert_close(found[1][1][name], expected, atol=5e-5 * scale, rtol=0, msg=name)


def test_the_sums_are_those_of_their_labels(processor, packs):
    """By the heads' outputs and a loop over labels that are written down here."""
    model = tiny_model(processor)
    set_trainable(model, a_stage())
    (pack,) = packs([0, 1, 2, 3, 4])
    with torch.no_grad():
        visuals = encode_visuals(model, pack)
        assert visuals.shown == [[0], [], [0, 1], [1], [0]]
        losses = objective(processor)(model, pack)
        # Of sample 2 the last visual is the current one.
        logits = model.heads["findings"](visuals.features, visuals.patches, [[0], [1]])
        expected = -F.logsigmoid(logits[0, 0]) - F.logsigmoid(-logits[1, 0]) - 3 * F.logsigmoid(logits[1, 1])
        assert losses.auxiliary["findings"].item() == pytest.approx(expected.item(), rel=1e-5)
        logits = model.heads["progression"](visuals.features, visuals.patches, [(0, 1)])
        assert losses.auxiliary["progression"].item() == pytest.approx(-logits[0, 1].log_softmax(0)[2].item(), rel=1e-5)
        present, places = model.heads["triplets"](visuals.features, visuals.patches, [[1]])
        expected = -F.logsigmoid(present[0, 0]) - F.logsigmoid(-present[0, 1])
        assert losses.auxiliary["triplets"].item() == pytest.approx(expected.item(), rel=1e-5)
        expected = -places[0, 0].log_softmax(0)[0]
        assert losses.auxiliary["triplets_position"].item() == pytest.approx(expected.item(), rel=1e-5)
        assert losses.total.item() == pytest.approx(Supervised()(model, pack).total.item(), rel=1e-6)


@pytest.mark.parametrize("paired_texts", [False, True])
def test_images_and_texts_are_told_by_one_classifier(processor, packs, paired_texts):
    """By a loop over labels that are written down here, and over texts that are read one by one."""
    loss = replace(LOSSES[-1], paired_texts=paired_texts)
    stage = a_stage(auxiliary=(loss,))
    model = tiny_model(processor)
    set_trainable(model, stage)
    (pack,) = packs([0, 1, 2, 3, 4, 5])
    shown = {0: ([0], {0: 1.0}), 2: ([1], {0: 0.0, 1: 1.0})}  # of sample 2 the last visual is the current one
    said = {1: {0: 1.0}, 5: {1: 0.0}} | ({0: {0: 1.0}, 2: {0: 0.0, 1: 1.0}} if paired_texts else {})
    with torch.no_grad():
        both = objective(processor, (loss,))
        losses = both(model, pack).auxiliary
        head, tokenizer, visuals = model.heads["unpaired"], processor.tokenizer, encode_visuals(model, pack)

        def told(vector: torch.Tensor, labels: dict[int, float]) -> float:
            logits = head.out(head.norm(vector))[0]
            return sum(-F.logsigmoid(logits[n] if there else -logits[n]).item() for n, there in labels.items())

        ends = np.cumsum(visuals.patches).tolist()
        expected = 0.0
        for (only,), labels in shown.values():
            features = visuals.features[ends[only] - visuals.patches[only] : ends[only]]
            expected += told(head.visual(head.pool(features, [len(features)])), labels)
        assert losses["unpaired_visual"].item() == pytest.approx(expected, rel=1e-5)
        expected = 0.0
        for item, labels in said.items():
            ids = [*tokenizer(ROWS[item].turns[1].text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            hidden = model.text.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
            expected += told(head.text(hidden.mean(dim=0, keepdim=True)), labels)
        assert losses["unpaired_text"].item() == pytest.approx(expected, rel=1e-5)
    assert both.auxiliary_counts(pack) == {"unpaired_visual": 3, "unpaired_text": 5 if paired_texts else 2}
    with pytest.raises(BadSample, match=r"findings.mass is 'yes'"):
        _accept(a_sample("bad", [], findings={"mass": "yes"}), stage, Path("m.jsonl"))


def test_visuals_are_encoded_once(processor, packs):
    model = tiny_model(processor)
    set_trainable(model, a_stage())
    seen = []
    model.vision.register_forward_pre_hook(lambda *_: seen.append(1))
    objective(processor)(model, packs([0, 2])[0])
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"findings": {"nodule": "yes"}}, "findings.nodule is 'yes'"),
        ({"findings": ["nodule"]}, "findings is a list"),
        ({"progression": {"nodule": "larger"}}, "progression.nodule is 'larger'"),
        ({"triplets": [{"entity": "nodule", "present": False, "position": "left"}]}, "absent and where it is"),
        ({"triplets": [{"entity": "nodule"}]}, "triplets holds"),
        ({"triplets": {"nodule": True}}, "triplets is a dict"),
    ],
)
def test_labels_that_are_none_are_quarantined(metadata, message):
    row = a_sample("bad", ["a.png", "b.png"], **metadata)
    with pytest.raises(BadSample, match=message) as caught:
        _accept(row, a_stage(), Path("m.jsonl"))
    assert "m.jsonl, sample bad" in str(caught.value)
    without = a_stage(auxiliary=(), learning_rate=LearningRates(text=1e-3))
    _accept(row, without, Path("m.jsonl"))


def test_progression_needs_a_prior():
    with pytest.raises(BadSample, match="needs a prior and a current visual"):
        _accept(a_sample("one", ["a.png"], progression={"mass": "same"}), a_stage(), Path("m.jsonl"))


def test_a_contrastive_stage_takes_pairs_only():
    stage = a_stage(objective="contrastive", learning_rate=LearningRates(heads=1e-3), auxiliary=())
    _accept(ROWS[0], stage, Path("m.jsonl"))
    with pytest.raises(BadSample, match="the sample has no visual, but stage 's' is contrastive"):
        _accept(ROWS[1], stage, Path("m.jsonl"))
    with pytest.raises(BadSample, match="must not be trained on"):
        _accept(replace(ROWS[0], split="test"), stage, Path("m.jsonl"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": LearningRates(text=1e-3)}, "'findings' reads a head that would stay at its random weights"),
        ({"auxiliary": ()}, "neither the objective nor an auxiliary loss has a head"),
        ({"auxiliary": LOSSES[:1] * 2}, "2 auxiliary losses of kind 'findings'"),
        (
            {"objective": "preference", "learning_rate": LearningRates(), "lora": Lora()},
            "a preference stage has auxiliary losses",
        ),
        ({"objective": "contrastive", "auxiliary": ()}, "does not run the projector"),
        (
            {"objective": "contrastive", "auxiliary": (), "learning_rate": LearningRates(vision=1e-3)},
            "the contrastive objective reads a head",
        ),
        (
            {"objective": "contrastive", "auxiliary": (), "learning_rate": LearningRates(heads=1e-3),
             "lora": Lora(targets=("projector.all",))},
            "does not run the projector",
        ),
        (
            {"objective": "contrastive", "auxiliary": LOSSES[-1:], "learning_rate": LearningRates(heads=1e-3)},
            "takes pairs only, and has the auxiliary loss 'unpaired'",
        ),
        ({"contrastive": ContrastiveConfig()}, "'contrastive' is set, but the objective is 'supervised'"),
    ],
)  # fmt: skip
def test_stages_that_are_refused(changes, message):
    with pytest.raises(BadConfig, match=message):
        a_stage(**changes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "findings"}, "has no findings"),
        ({"kind": "findings", "findings": ("a", "a")}, "names one of its findings twice"),
        ({"kind": "findings", "findings": ("a",), "positions": ("left",)}, "has positions"),
        ({"kind": "triplets", "findings": ("a",)}, "has no positions"),
        ({"kind": "findings", "findings": ("a",), "positive_weights": {"b": 2.0}}, "names 'b'"),
        ({"kind": "findings", "findings": ("a",), "paired_texts": True}, "for kind: unpaired only"),
        ({"kind": "unpaired", "findings": ("a",), "positions": ("left",)}, "has positions"),
        ({"kind": "progression", "findings": ("a",), "positive_weights": {"a": 2.0}}, "for kind: findings only"),
    ],
)
def test_settings_that_are_refused(settings, message):
    with pytest.raises(BadConfig, match=message):
        AuxiliaryLoss(**settings)


YAML = """\
name: labels
output_dir: OUTPUT
model:
  vision: {hidden_size: 48, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 96, patch_size: [8, 8, 8]}
  projector: {hidden_size: 32, merge: [1, 2, 2]}
  text:
    config: {model_type: qwen3, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1,
             head_dim: 16, intermediate_size: 64, max_position_embeddings: 1024, tie_word_embeddings: true}
  tokenizer: {train: {vocab_size: 300}}
  processor: {max_patches: {volume: 64}, max_depth: {volume: 32}}
data: {root: ROOT, tokens_per_pack: 4096, patches_per_pack: 2048}
engine: {kind: accelerate, device: cpu}
stages:
  - name: labels
    mixture: [{manifest: train.jsonl}]
    learning_rate: {vision: 3e-3, projector: 1e-3, text: 1e-3, heads: 3e-3}
    auxiliary: [{kind: findings, findings: [pleural effusion], pooling: attention}]
    steps: 80
    warmup_steps: 3
"""


def patients(folder: Path, first: int, count: int) -> list[Sample]:
    samples = []
    for index in range(first, first + count):
        generators = streams(7, index)
        patient = draw_patient(index, split="train", rng=generators["patient"])
        spacing = draw_spacing(generators["ct"])
        np.save(folder / f"{index}.npy", render_ct(patient, spacing, generators["ct"]).astype(np.float32))
        options = {"unit": "HU", "modality": "CT", "spacing_mm": list(spacing), "orientation": "SPL"}
        shown = VisualRef(kind="volume", path=f"{index}.npy", options=options)
        turns = (Turn(role="user", content=(shown, "Describe.")), Turn(role="assistant", content=("A chest.",)))
        samples.append(
            Sample(
                sample_id=str(index), patient_id=str(index), study_id=str(index), source="phantoms",
                licence="Apache-2.0", split="train", turns=turns, metadata=labels(patient.findings, CHEST_KINDS),
            )
        )  # fmt: skip
    return samples


@pytest.mark.slow
def test_a_head_learns_a_finding_that_holds_on_other_patients(tmp_path):
    """Effusions: an enlarged heart is not told from a normal one by so few patients at so coarse a resolution."""
    write_manifest(tmp_path / "train.jsonl", patients(tmp_path, 0, 160))
    config = tmp_path / "labels.yaml"
    config.write_text(YAML.replace("ROOT", str(tmp_path)).replace("OUTPUT", str(tmp_path / "run")), encoding="utf-8")
    try:
        checkpoint = run_curriculum(load_curriculum(config), connect("cpu"))
    finally:
        disconnect()
    rows = [json.loads(line) for line in (checkpoint.parent / "metrics.jsonl").read_text().splitlines()]
    first, last = (np.mean([row["findings"] for row in part]) for part in (rows[:5], rows[-5:]))
    assert last < 0.6 * first, f"the auxiliary loss went from {first:.3f} to {last:.3f}"
    model, processor = load_checkpoint(checkpoint)
    others, renderer = patients(tmp_path, 1000, 80), Renderer(processor, tmp_path)
    pack = collate([(sample.sample_id, renderer.sides(sample)) for sample in others], others)
    with torch.no_grad():
        visuals = encode_visuals(model, pack)
        logits = model.heads["findings"](visuals.features, visuals.patches, visuals.shown)
    names = model.config.heads["findings"]["findings"]
    truth = np.array([[sample.metadata["findings"][name] for name in names] for sample in others])
    losses = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(truth).float(), reduction="none").mean(dim=0)
    rate = truth.mean(axis=0)
    # The best that can be said without looking, even by one who knows how many of these patients have it.
    blind = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    found = f"{names}: log loss {losses.tolist()}, without looking {blind}"
    assert (losses.numpy() < 0.7 * blind).all(), found
    right = ((logits.numpy() > 0) == truth).mean(axis=0)
    assert (right > np.maximum(rate, 1 - rate) + 0.05).all(), f"{names}: right {right}, of {rate} present; {found}"
