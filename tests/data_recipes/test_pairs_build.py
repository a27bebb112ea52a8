"""The command medvlm data pairs: bounded, resumable, the same bytes, nobody held out; and what it writes trains."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import a_video, a_volume, an_image

from medvlm.data_recipes.manifest import read_manifest, verify, write_manifest
from medvlm.data_recipes.packing import Limits, collate, length_of
from medvlm.data_recipes.pairs import build
from medvlm.data_recipes.pairs.build import PairSettings, make_pairs
from medvlm.data_recipes.pairs.image_rules import parse_image_rule
from medvlm.data_recipes.pairs.pool import Entry, Pool
from medvlm.data_recipes.pairs.visual_files import write_visual
from medvlm.data_recipes.rendering import Renderer
from medvlm.data_recipes.sample import Sample, Turn
from medvlm.eval.make_pairs import main
from medvlm.train.config import Lora, PreferenceConfig
from medvlm.train.lora import add_lora
from medvlm.train.objectives.preference import Preference

REPORTS = (
    "Findings: There is a moderate left pleural effusion. No pneumothorax. Impression: Left pleural effusion.",
    "Findings: The lungs are clear. Heart size is normal. No pleural effusion. Impression: No acute disease.",
    "Findings: A 12 mm nodule is in the right upper lobe. The heart is enlarged. Impression: Nodule. Cardiomegaly.",
)


def a_row(number: int, patient: str | None = None, split: str = "train", refs=(), answer: str | None = None) -> Sample:
    patient = patient or f"p{number}"
    return Sample(
        sample_id=f"s{number}", patient_id=patient, study_id=patient, source="a", licence="CC0-1.0", split=split,
        turns=(
            Turn(role="user", content=(*refs, "Write the report.")),
            Turn(role="assistant", content=(answer or f"{REPORTS[number % 3]} Patient words {number}.",)),
        ),
        metadata={"modality": "CR"},
    )  # fmt: skip


ALL = PairSettings(per_sample=None)


def of_others(pairs: list[Sample]) -> set[str]:
    return {str(pair.metadata["pair"]["from_sample"]) for pair in pairs if "from_sample" in pair.metadata["pair"]}


def test_nobody_held_out_is_a_source_or_another_patient(tmp_path) -> None:
    rows = [a_row(n) for n in range(12)]
    rows += [a_row(20, "p3", split="test"), a_row(21, split="test"), a_row(22, split="validation")]
    write_manifest(tmp_path / "m.jsonl", rows)
    write_manifest(tmp_path / "test.jsonl", [a_row(30, "p5", split="test")])
    settings = replace(ALL, held_out=(tmp_path / "test.jsonl",))
    tally = make_pairs(tmp_path / "m.jsonl", tmp_path / "out.jsonl", settings, show=False)
    pairs, refused = read_manifest(tmp_path / "out.jsonl")
    assert pairs and not refused and not verify(tmp_path / "out.jsonl")
    used = {pair.patient_id for pair in pairs}
    assert used == {f"p{n}" for n in range(12)} - {"p3", "p5"}
    assert {pair.split for pair in pairs} == {"train"}
    assert of_others(pairs) and not of_others(pairs) & {"s3", "s5", "s20", "s21", "s22"}
    assert tally.left_out == {"split test": 2, "split validation": 1, "patient held out": 2}


def test_a_held_out_manifest_that_cannot_be_read_is_refused(tmp_path) -> None:
    write_manifest(tmp_path / "m.jsonl", [a_row(n) for n in range(3)])
    (tmp_path / "test.jsonl").write_text('{"patient_id": "p1"}\n{"patient')
    with pytest.raises(ValueError, match=r"row 2 of .*test\.jsonl names no patient"):
        make_pairs(
            tmp_path / "m.jsonl", tmp_path / "o.jsonl", replace(ALL, held_out=(tmp_path / "test.jsonl",)), show=False
        )


def test_held_out_pairs_come_from_their_own_split_alone(tmp_path) -> None:
    write_manifest(tmp_path / "m.jsonl", [a_row(n, split=("train", "test")[n % 2]) for n in range(12)])
    make_pairs(tmp_path / "m.jsonl", tmp_path / "out.jsonl", replace(ALL, split="test"), show=False)
    pairs, _ = read_manifest(tmp_path / "out.jsonl")
    assert {pair.split for pair in pairs} == {"test"} and of_others(pairs) <= {f"s{n}" for n in range(1, 12, 2)}


def test_official_splits_are_used_only_when_allowed(tmp_path) -> None:
    rows = [a_row(0), a_row(1, "p0", split="test"), a_row(2)]
    write_manifest(tmp_path / "m.jsonl", [replace(row, metadata={"official_split": True}) for row in rows])
    for allowed, expected in ((False, {"p2"}), (True, {"p0", "p2"})):
        make_pairs(tmp_path / "m.jsonl", tmp_path / "out.jsonl", replace(ALL, allow_official=allowed), show=False)
        assert {pair.patient_id for pair in read_manifest(tmp_path / "out.jsonl")[0]} == expected


def test_rules_share_the_samples_evenly(tmp_path) -> None:
    write_manifest(tmp_path / "m.jsonl", [a_row(n) for n in range(90)])
    tally = make_pairs(tmp_path / "m.jsonl", tmp_path / "out.jsonl", PairSettings(per_sample=1), show=False)
    assert sum(tally.pairs.values()) == 90 and tally.samples == {"1": 90}
    fired = [tally.pairs[name] for name in ("side_flip", "negation_flip", "invented_finding", "other_report")]
    assert max(fired) - min(fired) <= 3
    stated = json.loads((tmp_path / "out.summary.json").read_text())
    pairs, _ = read_manifest(tmp_path / "out.jsonl")
    counted = Counter(pair.preference.made_by for pair in pairs)
    assert {name: count for name, count in stated["pairs"].items() if count} == counted
    assert len({pair.sample_id for pair in pairs}) == len(pairs)


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(build, "CHECKPOINT_ROWS", 7)
    manifest, out = tmp_path / "m.jsonl", tmp_path / "out.jsonl"
    write_manifest(manifest, [a_row(n) for n in range(40)])
    with manifest.open("a") as file:
        file.write("{broken\n")
    make_pairs(manifest, tmp_path / "whole.jsonl", ALL, show=False)
    real, seen = build.pairs_of, []

    def stop(case, *rest):
        seen.append(case.sample.sample_id)
        if len(seen) == 25:
            raise KeyboardInterrupt
        return real(case, *rest)

    monkeypatch.setattr(build, "pairs_of", stop)
    with pytest.raises(KeyboardInterrupt):
        make_pairs(manifest, out, ALL, show=False)
    assert not out.exists() and (tmp_path / ".out.jsonl.part").exists()
    with (tmp_path / ".out.jsonl.part").open("ab") as file:
        file.write(b'{"torn": ')  # what a killed process leaves
    with pytest.raises(ValueError, match="other settings"):
        make_pairs(manifest, out, replace(ALL, seed=1), show=False)
    seen.clear()
    seen.extend("x" * 30)
    tally = make_pairs(manifest, out, ALL, show=False)
    assert len(seen) - 30 == 40 - 21, "rows before the last state are not done again"
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert tally.quarantined == 1 and "not JSON" in (tmp_path / "out.quarantine.jsonl").read_text()
    assert (tmp_path / "out.summary.json").read_bytes() == (tmp_path / "whole.summary.json").read_bytes()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_pool_is_bounded_and_does_not_depend_on_the_order() -> None:
    entries = [
        Entry(
            sample_id=f"s{n}", patient_id=f"p{n}", prompt="", answer="", report=True, positives=frozenset(), visuals=()
        )
        for n in range(200)
    ]
    one, other = Pool(seed=1, size=16), Pool(seed=1, size=16)
    for entry in entries:
        one.add("g", entry)
    for entry in reversed(entries):
        if other.wants("g", entry.sample_id):
            other.add("g", entry)
    drawn = [[e.sample_id for e in pool.others("g", "p", np.random.default_rng(0))] for pool in (one, other)]
    assert drawn[0] == drawn[1] and len(drawn[0]) == 16 and one.sizes() == {"g": 16}
    assert set(drawn[0]) != {e.sample_id for e in entries[:16]}


def test_a_manifest_with_a_group_for_every_row_is_refused(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.setattr("medvlm.data_recipes.pairs.pool.MOST_GROUPS", 5)
    rows = [replace(a_row(n), metadata={"modality": f"m{n}"}) for n in range(9)]
    write_manifest(tmp_path / "m.jsonl", rows)
    assert main([str(tmp_path / "m.jsonl"), "--out", str(tmp_path / "o.jsonl"), "--quiet"]) == 2
    assert "metadata.modality" in capsys.readouterr().err


def test_the_command_says_what_it_did(tmp_path, capsys) -> None:
    manifest, out = tmp_path / "m.jsonl", tmp_path / "pairs" / "out.jsonl"
    write_manifest(manifest, [a_row(n) for n in range(6)])
    assert main([str(manifest), "--out", str(out), "--rules", "side_flip, other_report", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "side_flip" in said and "other_report" in said and "negation_flip" not in said
    assert main([str(manifest), "--out", str(manifest)]) == 2
    assert main([str(manifest), "--out", str(out), "--rules", "wrong"]) == 2
    assert main([str(manifest), "--out", str(out), "--images", "blur"]) == 2
    assert main([str(tmp_path / "none.jsonl"), "--out", str(out)]) == 2
    assert main([str(tmp_path), "--out", str(out)]) == 2
    (tmp_path / "latin.csv").write_bytes("Größe\n".encode("cp1252"))
    assert main([str(tmp_path / "latin.csv"), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path} is no file; give a manifest" in told and "latin.csv. Mend: give one" in told
    assert main([str(manifest), "--out", str(out), "--rules", "none"]) == 2
    assert "no rule is chosen" in capsys.readouterr().err
    with manifest.open("a") as file:
        file.write("[]\n")
    assert main([str(manifest), "--out", str(out), "--quiet"]) == 1


@pytest.fixture
def illustrated(tmp_path) -> Path:
    """A manifest of two patients for each kind of visual."""
    visuals = [an_image(1), an_image(2), a_volume(3), a_volume(4), a_video(5), a_video(6)]
    rows = []
    for number, visual in enumerate(visuals):
        ref = write_visual(visual, tmp_path / "images", f"v{number}", tmp_path)
        rows.append(a_row(number, refs=(ref,), answer=REPORTS[0] if number % 2 else REPORTS[2]))
    write_manifest(tmp_path / "m.jsonl", rows)
    return tmp_path


def test_pairs_train_and_their_sides_show_different_images(illustrated, processor, model) -> None:
    images = tuple(parse_image_rule(word) for word in ("noise", "noise:1", "crop", "other_patient"))
    make_pairs(illustrated / "m.jsonl", illustrated / "out.jsonl", replace(ALL, images=images), show=False)
    pairs, refused = read_manifest(illustrated / "out.jsonl")
    assert not refused and not verify(illustrated / "out.jsonl", hashes=True)
    by_image = Counter(pair.preference.made_by for pair in pairs if pair.preference.made_by.startswith("image_"))
    assert by_image == {"image_noise": 6, "image_noise_1": 6, "image_crop": 6, "image_other_patient": 6}
    renderer = Renderer(processor, illustrated)
    torch.manual_seed(0)
    add_lora(model, Lora(rank=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    objective = Preference(PreferenceConfig(), model)
    for pair in pairs:
        sides = renderer.sides(pair)
        Limits(tokens=4000, patches=4000).check(length_of(sides), where=pair.sample_id)
        batch = collate([(pair.sample_id, sides)])
        batch.check(visual_token_id=processor.visual_token_id)
        other_image = pair.preference.made_by.startswith("image_")
        assert len(batch.grids) == (2 if other_image else 1)
        assert np.array_equal(sides[0].tokens, sides[1].tokens) == other_image, "same text or same image, never both"
        if other_image:
            assert not np.array_equal(sides[0].visuals[0].patches, sides[1].visuals[0].patches)
            loss = objective(model, batch)
            assert torch.isfinite(loss.total) and loss.metrics["margin"] != 0
            loss.total.backward()


def test_pairs_elsewhere_still_find_their_images(illustrated, tmp_path_factory) -> None:
    away = tmp_path_factory.mktemp("away") / "out.jsonl"
    settings = replace(ALL, images=(parse_image_rule("noise"), parse_image_rule("other_patient")))
    make_pairs(illustrated / "m.jsonl", away, settings, show=False)
    assert not verify(away, hashes=True)
    make_pairs(illustrated / "m.jsonl", illustrated / "out.jsonl", settings, show=False)
    names = [sorted(p.name for p in folder.glob("out_visuals/*")) for folder in (away.parent, illustrated)]
    assert names[0] == names[1] and len(names[0]) == 6


def test_a_visual_that_cannot_be_read_is_refused_and_the_rest_is_kept(illustrated) -> None:
    (illustrated / "images" / "v0.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    settings = replace(ALL, images=(parse_image_rule("noise"),))
    tally = make_pairs(illustrated / "m.jsonl", illustrated / "out.jsonl", settings, show=False)
    assert tally.quarantined == 1 and tally.pairs["image_noise"] == 5
    (bad,) = [json.loads(line) for line in (illustrated / "out.quarantine.jsonl").read_text().splitlines()]
    assert bad["sample_id"] == "s0" and "v0.png" in bad["where"]
