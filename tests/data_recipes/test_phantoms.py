"""Virtual patients: the same bytes from the same seed, answers that agree with the patient, findings one can see."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import av
import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image as Picture

from medvlm.data_recipes.manifest import read_manifest, verify
from medvlm.data_recipes.phantoms import files, language
from medvlm.data_recipes.phantoms.anatomy import place
from medvlm.data_recipes.phantoms.cine import render_cine
from medvlm.data_recipes.phantoms.ct import render_ct
from medvlm.data_recipes.phantoms.patient import (
    CHEST_KINDS,
    FOCAL,
    HEART_GRADES,
    PLEURAL_GRADES,
    ZONES,
    Finding,
    VirtualPatient,
    compatible,
    draw_finding,
    draw_patient,
    split_patients,
    streams,
)
from medvlm.data_recipes.phantoms.radiograph import render_prior, render_radiograph
from medvlm.data_recipes.phantoms.rows import MANIFESTS, Row, Visuals, rows_of
from medvlm.data_recipes.phantoms.write import FRACTIONS, main, write_phantoms
from medvlm.data_recipes.sample import Sample, VisualRef, from_json, to_json
from medvlm.model.geometry import resize_volume

SPACING = (9.0, 5.2, 5.2)
MANY = 400


def patient_with(*findings: Finding, seed: int = 0) -> VirtualPatient:
    rng = np.random.default_rng(seed)
    body = draw_patient(0, split="train", rng=rng).body
    spots = tuple(place(body, f.kind, f.side, f.zone, f.severity, f.size_mm, f.count or 1, rng) for f in findings)
    return VirtualPatient(
        patient_id="p", index=0, split="train", body=body, findings=findings, spots=spots, cine_findings=None
    )


def without_findings(patient: VirtualPatient) -> VirtualPatient:
    return replace(patient, findings=(), spots=())


def every_finding() -> list[Finding]:
    found = [Finding(kind="cardiomegaly", severity=grade) for grade in HEART_GRADES]
    for side in ("left", "right"):
        for kind in ("pleural effusion", "pneumothorax"):
            found += [Finding(kind=kind, side=side, severity=grade) for grade in PLEURAL_GRADES]
        for zone in ZONES:
            found.append(Finding(kind="nodule", side=side, zone=zone, size_mm=20, count=1))
            found.append(Finding(kind="nodule", side=side, zone=zone, size_mm=20, count=3))
            found.append(Finding(kind="mass", side=side, zone=zone, size_mm=50))
            found.append(Finding(kind="consolidation", side=side, zone=zone))
    return found


def name_of(finding: Finding) -> str:
    words = (finding.side, finding.zone, finding.severity, finding.count)
    return " ".join(str(word) for word in (finding.kind, *words) if word)


@cache
def population() -> tuple[tuple[VirtualPatient, tuple[Row, ...]], ...]:
    """MANY patients and their rows, without rendering anything."""
    everyone = []
    for index, split in enumerate(split_patients(MANY, 7, FRACTIONS)):
        generators = streams(7, index)
        patient = draw_patient(index, split=split, rng=generators["patient"])
        refs = {name: VisualRef(kind="image", path=f"{index}/{name}.png") for name in ("radiograph", "prior", "cine")}
        visuals = Visuals(
            radiograph=refs["radiograph"],
            ct=VisualRef(kind="volume", path=f"{index}/ct.nii.gz"),
            prior=refs["prior"] if patient.has_prior else None,
            cine=refs["cine"] if patient.has_clip else None,
        )
        everyone.append((patient, tuple(rows_of(patient, visuals, generators["language"]))))
    return tuple(everyone)


def exchanges(sample: Sample) -> list[tuple[str, str]]:
    """(question, answer) of a training conversation or of an evaluation row."""
    if sample.question is not None:
        return [(sample.turns[-1].text, sample.question.answers[0])]
    return [(q.text, a.text) for q, a in zip(sample.turns[::2], sample.turns[1::2], strict=True)]


def tree(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, dict[str, int]]:
    out = tmp_path_factory.mktemp("phantoms") / "a"
    return out, write_phantoms(out, patients=21, seed=5, workers=1)


# --- the folder ----------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes(written, tmp_path):
    out, counts = written
    assert write_phantoms(tmp_path / "b", patients=21, seed=5) == counts
    assert tree(tmp_path / "b") == tree(out)


@pytest.mark.slow
def test_workers_do_not_change_the_bytes(written, tmp_path):
    out, counts = written
    assert write_phantoms(tmp_path / "b", patients=21, seed=5, workers=2) == counts
    assert tree(tmp_path / "b") == tree(out)


def test_another_seed_gives_other_pictures(written, tmp_path):
    write_phantoms(tmp_path / "c", patients=2, seed=6)
    first, other = tree(written[0]), tree(tmp_path / "c")
    shared = [name for name in other if name in first]
    assert len([name for name in shared if name.startswith("images/")]) >= 3
    assert all(other[name] != first[name] for name in shared if name.startswith("images/"))


def test_manifests_are_accepted_whole_and_their_hashes_hold(written):
    out, counts = written
    manifests = [out / f"{name}.jsonl" for name in MANIFESTS]
    assert verify(*manifests, hashes=True) == []
    for path in manifests:
        samples, refused = read_manifest(path)
        assert refused == [] and len(samples) == counts[path.stem]
        assert all(s.licence == "Apache-2.0" and s.source == "phantoms" for s in samples)
        assert all(ref.sha256 is not None for s in samples for ref in s.visuals())
    summary = json.loads((out / "phantoms.json").read_text())
    assert summary["sha256"]["test_questions.jsonl"] == tree(out)["test_questions.jsonl"]
    assert summary["counts"] == counts and counts["volumes"] == 21 and counts["videos"] == 10


def test_formats_are_mixed(written):
    names = {Path(name).name for name in tree(written[0])}
    assert {"radiograph.png", "radiograph.dcm", "ct.nii.gz", "000.dcm", "cine.mp4"} <= names


def test_refuses_a_folder_that_holds_something(tmp_path):
    (tmp_path / "old.txt").write_text("x")
    with pytest.raises(ValueError, match=r"not an empty folder.*delete it"):
        write_phantoms(tmp_path, patients=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]


def test_command_prints_the_counts(tmp_path, capsys):
    main(["--patients", "2", "--seed", "1", "--out", str(tmp_path / "d")])
    assert re.search(r"^patients +2$", capsys.readouterr().out, re.MULTILINE)
    assert (tmp_path / "d" / "phantoms.json").exists()


# --- who has what --------------------------------------------------------------------------------------------


def test_splits_are_of_patients_and_of_the_asked_size():
    splits = Counter(split_patients(200, 3, (0.8, 0.05, 0.15)))
    assert splits == {"train": 160, "validation": 10, "test": 30}
    assert split_patients(200, 3, FRACTIONS) != split_patients(200, 4, FRACTIONS)
    for patient, rows in population():
        assert {sample.split for _, sample in rows} == {patient.split}
        assert all(name.startswith(patient.split) for name, _ in rows)


def test_refuses_fractions_that_do_not_sum_to_one():
    with pytest.raises(ValueError, match=r"sum to 1.*0\.8, 0\.05, 0\.15"):
        split_patients(10, 0, (0.8, 0.1, 0.2))


def test_findings_are_spread_as_stated():
    patients = [patient for patient, _ in population()]
    numbers = Counter(len(p.findings) for p in patients)
    assert abs(numbers[0] / MANY - 0.15) < 0.05 and abs(numbers[2] / MANY - 0.40) < 0.06
    assert abs(sum(p.has_prior for p in patients) / MANY - 0.22) < 0.06
    kinds = Counter(f.kind for p in patients for f in p.findings)
    assert set(kinds) == set(CHEST_KINDS) and max(kinds.values()) < 1.5 * min(kinds.values())
    for patient in patients:
        assert len({f.kind for f in patient.findings}) == len(patient.findings)
        if len(patient.findings) == 2:
            assert compatible(*patient.findings)


def test_compatible_treats_left_and_right_alike():
    rng = np.random.default_rng(0)
    mirror = {"left": "right", "right": "left", None: None}
    for _ in range(300):
        one, two = (draw_finding(str(kind), rng) for kind in rng.permutation(CHEST_KINDS)[:2])
        flipped = (replace(f, side=mirror[f.side]) for f in (one, two))
        assert compatible(one, two) == compatible(*flipped) == compatible(two, one)


# --- what is said --------------------------------------------------------------------------------------------

NOUN = re.compile(r"(nodule|mass|consolidation|pleural effusion|pneumothorax|cardiomegaly|reduced motion|pericardial)")


def expected_answer(prompt: str, findings: tuple[Finding, ...]) -> str:
    """The answer read from the prompt alone and the patient, by rules of this test's own."""
    named = NOUN.search(prompt)
    assert named, prompt
    kind = named.group(1).replace("pericardial", "pericardial effusion")
    finding = next((f for f in findings if f.kind == kind), None)
    if prompt.endswith("yes or no."):
        return "no" if finding is None else "yes"
    assert finding is not None, f"asks about details of an absent {kind}: {prompt}"
    if "Answer left or right." in prompt:
        return str(finding.side)
    if prompt.endswith("with the letter."):
        return next(line[0] for line in prompt.splitlines() if line[1:] == f". {finding.zone}")
    if prompt.startswith("About how large"):
        return f"{(finding.size_mm + 2) // 5 * 5} mm"
    if prompt.startswith("How many"):
        return str(finding.count)
    if prompt.startswith("How severe"):
        return str(finding.severity)
    assert prompt.startswith("The first image is the prior"), prompt
    return str(finding.change)


def test_every_answer_agrees_with_the_patient():
    asked = Counter()
    for patient, rows in population():
        for name, sample in rows:
            if sample.preference is not None or name.startswith("train_captions"):
                continue
            findings = patient.findings if sample.metadata["dimension"] != "video" else patient.cine_findings
            for prompt, answer in exchanges(sample):
                if prompt == language.REPORT_REQUEST:
                    continue
                if sample.metadata["dimension"] == "text":
                    head, _, prompt = prompt.partition("\n")
                    assert head == language.report(findings)
                assert answer == expected_answer(prompt, findings), (sample.sample_id, prompt)
                asked[prompt.split()[0]] += 1
    assert sum(asked.values()) > 3000 and set(asked) >= {"Is", "On", "In", "About", "How", "The"}


def test_closed_answers_balance():
    counts: Counter[tuple[str, str]] = Counter()
    for _, rows in population():
        for name, sample in rows:
            if name == "train_2d" or name == "train_3d" or name.endswith("_questions"):
                for prompt, answer in exchanges(sample):
                    if sample.metadata["dimension"] != "video" and prompt.endswith(("yes or no.", "left or right.")):
                        counts[sample.metadata["dimension"], answer] += 1
    for dimension in ("2d", "3d"):
        for one, other in (("yes", "no"), ("left", "right")):
            a, b = counts[dimension, one], counts[dimension, other]
            assert min(a, b) > 150 and abs(a / (a + b) - 0.5) < 0.05, (dimension, one, a, b)


def test_zone_options_are_shuffled():
    letters = Counter(
        answer
        for _, rows in population()
        for _, sample in rows
        if sample.preference is None
        for prompt, answer in exchanges(sample)
        if prompt.endswith("with the letter.")
    )
    assert set(letters) == {"A", "B", "C"} and max(letters.values()) < 1.25 * min(letters.values())


def test_evaluation_rows_ask_one_question_each_and_survive_json():
    kinds = Counter()
    for _, rows in population():
        for name, sample in rows:
            assert from_json(to_json(sample), where="here:1") == sample
            if name.endswith("_questions") or name == "test_reports":
                assert sample.question is not None and len(sample.turns) == 1
                kinds[sample.question.kind] += 1
                if name == "test_reports" and sample.metadata["dimension"] != "video":
                    assert [f["kind"] for f in sample.question.findings] == list(CHEST_KINDS)
            else:
                assert sample.question is None
    assert set(kinds) == {"closed", "choice", "open", "report"}


def test_report_reads_as_agreed():
    findings = (
        Finding(kind="cardiomegaly", severity="severe"),
        Finding(kind="nodule", side="left", zone="upper", size_mm=21, count=3),
    )
    assert language.report(findings) == (
        "Findings: There are 3 nodules of 20 mm in the left upper zone. No mass. No consolidation. "
        "No pleural effusion. No pneumothorax. The heart is severely enlarged. "
        "Impression: 3 left upper zone nodules. Severe cardiomegaly."
    )
    assert language.report(()).endswith("No cardiomegaly. Impression: No abnormality.")


def facts(report: str) -> dict[str, tuple[str, ...]]:
    """kind -> (side, everything else said) of a report, read from its sentences by this test's own rules."""
    body = report.removeprefix("Findings: ").split(" Impression: ")[0]
    found = {}
    for sentence in re.split(r"(?<=\.) ", body):
        if sentence.startswith("No "):
            continue
        kind = "cardiomegaly" if "enlarged" in sentence else NOUN.search(sentence).group(1)
        side = next((s for s in ("left", "right") if f" {s} " in sentence), "")
        found[kind] = (side, sentence.replace(f" {side} ", " ") if side else sentence)
    return found


def test_rejected_reports_differ_only_in_the_stated_way():
    ways = Counter()
    for patient, rows in population():
        for name, sample in rows:
            if not name.endswith("_pairs"):
                continue
            pair = sample.preference
            right, wrong = facts(pair.chosen[0].text), facts(pair.rejected[0].text)
            assert set(right) == {f.kind for f in patient.findings}
            changed = [kind for kind in right.keys() & wrong.keys() if right[kind] != wrong[kind]]
            lost, gained = right.keys() - wrong.keys(), wrong.keys() - right.keys()
            shape = (len(lost), len(gained), len(changed))
            ways[pair.made_by, sample.metadata["dimension"]] += 1
            if pair.made_by == "negation_flip":
                assert shape == (1, 0, 0) and f"No {next(iter(lost))}." in pair.rejected[0].text
            elif pair.made_by == "invented_finding":
                assert shape == (0, 1, 0)
            else:
                assert shape == (0, 0, 1)
                (side, rest), (wrong_side, wrong_rest) = right[changed[0]], wrong[changed[0]]
                assert (side == wrong_side) != (pair.made_by == "side_flip")
                assert (rest == wrong_rest) == (pair.made_by == "side_flip")
            impressions = [side[0].text.split(" Impression: ")[1] for side in (pair.chosen, pair.rejected)]
            # A size is the only thing that the impression does not repeat.
            assert impressions[0] != impressions[1] or pair.made_by == "severity_swap"
    assert set(ways) == {(how, d) for how in language.CORRUPTIONS for d in ("2d", "3d")}
    assert min(ways.values()) > 25


def test_patients_of_the_preference_stage_are_in_no_supervised_manifest():
    patients: dict[str, set[str]] = {}
    for _, rows in population():
        for name, sample in rows:
            patients.setdefault(name, set()).add(sample.patient_id)
    preferred = patients["train_pairs"]
    supervised = set().union(*(who for n, who in patients.items() if n.startswith("train_") and n != "train_pairs"))
    everyone = {patient.patient_id for patient, _ in population() if patient.split == "train"}
    assert not preferred & supervised and preferred | supervised == everyone
    assert 0.1 < len(preferred) / len(everyone) < 0.2


def test_corruption_that_does_not_apply_is_refused():
    with pytest.raises(ValueError, match=r"side_flip does not apply.*invented_finding"):
        language.corrupt((Finding(kind="cardiomegaly", severity="mild"),), "side_flip", np.random.default_rng(0))


# --- what is seen --------------------------------------------------------------------------------------------


def noise_and_change(with_it: np.ndarray, healthy: np.ndarray, again: np.ndarray) -> tuple[float, np.ndarray]:
    return float((healthy - again).std()), with_it - healthy


@pytest.mark.parametrize("finding", every_finding(), ids=name_of)
def test_finding_stands_out_after_down_sizing(finding):
    """At 64x64 and 16x48x48 enough pixels (voxels) change by far more than the noise, on the right side."""
    patient = patient_with(finding)
    small = [
        render_radiograph(p, 2.8, np.random.default_rng(seed)).reshape(64, 2, 64, 2).mean((1, 3))
        for p, seed in ((patient, 1), (without_findings(patient), 1), (without_findings(patient), 2))
    ]
    scans = [
        resize_volume(render_ct(p, SPACING, np.random.default_rng(seed)).astype(np.float32), (16, 48, 48))
        for p, seed in ((patient, 1), (without_findings(patient), 1), (without_findings(patient), 2))
    ]
    # Small exposure differences between two draws are no noise of the pixels.
    small[2] = small[2] * small[1].mean() / small[2].mean()
    for pictures, least in ((small, 0.12), (scans, 150.0)):
        noise, change = noise_and_change(*pictures)
        seen = np.abs(change) > max(least, 4 * noise)
        assert seen.sum() >= (8 if finding.kind == "nodule" else 20), (seen.sum(), noise)
        if finding.side is not None:
            columns = np.argwhere(seen)[:, -1]
            middle = (change.shape[-1] - 1) / 2 + patient.body.x0 / (
                2.8 * 2 if change.ndim == 2 else SPACING[2] * 64 / 48
            )
            assert (columns > middle).all() if finding.side == "left" else (columns < middle).all()
        if finding.kind in FOCAL and change.ndim == 2:
            rows = np.argwhere(seen)[:, 0].mean()
            assert rows == pytest.approx({"upper": 22, "middle": 32, "lower": 41}[finding.zone], abs=5)


def test_ct_holds_realistic_numbers():
    hu = render_ct(patient_with(), SPACING, np.random.default_rng(0))
    assert hu.dtype == np.int16 and hu.shape == (32, 64, 64)
    assert np.median(hu[:, :4, :4]) == pytest.approx(-1000, abs=10)
    lungs = hu[(hu > -950) & (hu < -780)]
    assert lungs.size > 4000 and np.median(lungs) == pytest.approx(-850, abs=20)
    assert hu.max() > 350 and hu.min() >= -1024
    soft_tissue = hu[(hu > -20) & (hu < 100)]
    assert np.median(soft_tissue) == pytest.approx(42, abs=12)


def test_fluid_is_behind_and_free_air_in_front():
    rows = np.arange(64)[None, :, None]
    for kind, sign in (("pleural effusion", 1), ("pneumothorax", -1)):
        patient = patient_with(Finding(kind=kind, side="left", severity="small"))
        hu = [render_ct(p, SPACING, np.random.default_rng(1)) for p in (patient, without_findings(patient))]
        filled = (hu[0] > -100) & (hu[1] < -600) if sign > 0 else hu[0] < -960
        filled &= (hu[1] > -950) & (hu[1] < -700) if sign < 0 else True
        assert filled.sum() > 100 and sign * ((filled * rows).sum() / filled.sum() - 31.5) > 5


def test_severity_orders_the_extent():
    for kind, grades in (
        ("pleural effusion", PLEURAL_GRADES),
        ("pneumothorax", PLEURAL_GRADES),
        ("cardiomegaly", HEART_GRADES),
    ):
        side = None if kind == "cardiomegaly" else "right"
        flat, deep = [], []
        for grade in grades:
            patient = patient_with(Finding(kind=kind, side=side, severity=grade))
            pair = (patient, without_findings(patient))
            pictures = [render_radiograph(p, 2.8, np.random.default_rng(1)) for p in pair]
            scans = [render_ct(p, SPACING, np.random.default_rng(1)) for p in pair]
            flat.append(int((np.abs(pictures[0] - pictures[1]) > 0.12).sum()))
            deep.append(int((np.abs(scans[0].astype(int) - scans[1]) > 120).sum()))
        if kind == "pneumothorax":
            deep = [0, 1, 2]  # all of the lung changes at any grade: it loses air
        assert flat[1] > 1.25 * flat[0] and flat[2] > 1.2 * flat[1], (kind, flat)
        assert deep[1] > 1.25 * deep[0] and deep[2] > 1.2 * deep[1], (kind, deep)


def test_prior_shows_the_stated_change():
    for kind in CHEST_KINDS:
        area = {}
        for change in ("larger", "smaller", "unchanged", "new"):
            side, zone = (None, None) if kind == "cardiomegaly" else ("left", "middle" if kind in FOCAL else None)
            size = {"nodule": 25, "mass": 55}.get(kind)
            grade = None if kind in FOCAL else "moderate"
            count = 1 if kind == "nodule" else None
            finding = Finding(kind=kind, side=side, zone=zone, size_mm=size, count=count, severity=grade, change=change)
            patient = patient_with(finding)
            gone = replace(patient, findings=(replace(finding, change="new"),))
            prior, empty = (render_prior(p, 2.8, np.random.default_rng(3)) for p in (patient, gone))
            drop = -1 if kind == "pneumothorax" else 1
            area[change] = int((drop * (prior - empty) > 0.10).sum())
        assert area["new"] == 0 < area["larger"], kind
        assert area["larger"] < 0.75 * area["unchanged"] and area["smaller"] > 1.2 * area["unchanged"], (kind, area)


def test_prior_of_a_patient_without_one_is_refused():
    patient = patient_with(Finding(kind="cardiomegaly", severity="mild"))
    with pytest.raises(ValueError, match="has no prior"):
        render_prior(patient, 2.8, np.random.default_rng(0))


def decoded(frames: np.ndarray) -> np.ndarray:
    with av.open(io.BytesIO(files.mp4_bytes(frames))) as container:
        assert float(container.streams.video[0].average_rate) == 10
        return np.stack([frame.to_ndarray(format="gray") for frame in container.decode(video=0)])


def test_clip_survives_its_codec_and_shows_motion_and_fluid():
    swing = {}
    for grade in (None, *HEART_GRADES):
        findings = (Finding(kind="reduced motion", severity=grade),) if grade else ()
        frames = render_cine(findings, np.random.default_rng(4))
        back = decoded(frames)
        assert back.shape == frames.shape == (16, 64, 64)
        assert np.abs(back.astype(int) - frames).mean() < 8
        cavity = (back[:, 20:52, 16:48] < 60).sum((1, 2))
        swing[grade] = (cavity.max() - cavity.min()) / cavity.max()
    order = [swing[grade] for grade in (None, *HEART_GRADES)]
    assert order == sorted(order, reverse=True) and order[0] > 1.15 * order[1]
    dry, wet = (
        decoded(render_cine(f, np.random.default_rng(4))) for f in ((), (Finding(kind="pericardial effusion"),))
    )
    assert (wet[:, 10:62, 6:58] < 40).mean() > 1.3 * (dry[:, 10:62, 6:58] < 40).mean()


# --- files ---------------------------------------------------------------------------------------------------


def test_dicom_series_and_nifti_hold_the_same_scan_with_left_on_the_left():
    patient = patient_with(Finding(kind="mass", side="left", zone="middle", size_mm=70))
    hu, healthy = (render_ct(p, SPACING, np.random.default_rng(1)) for p in (patient, without_findings(patient)))
    order = np.random.default_rng(2).permutation(32)
    series = files.ct_series(hu, spacing_mm=SPACING, patient_id="p", words=("x",), order=order)
    slices = [pydicom.dcmread(io.BytesIO(data)) for _, data in series]
    by_name = [float(s.ImagePositionPatient[2]) for s in slices]
    assert by_name != sorted(by_name), "file names give the order away"
    slices.sort(key=lambda s: float(s.ImagePositionPatient[2]))
    stack = np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices])
    np.testing.assert_array_equal(stack, hu)
    assert len({s.SOPInstanceUID for s in slices}) == 32 and len({s.SeriesInstanceUID for s in slices}) == 1

    data = files.nifti_bytes(hu, spacing_mm=SPACING)
    image = nib.Nifti1Image.from_bytes(gzip.decompress(data))
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), hu)
    np.testing.assert_allclose(image.header.get_zooms(), SPACING[::-1], rtol=1e-6)

    k, j, i = np.argwhere(np.abs(hu.astype(int) - healthy) > 400).mean(axis=0)
    right, anterior, superior = nib.affines.apply_affine(image.affine, (i, j, k))
    assert right < -40, "in RAS millimetres the left lung has a negative x"
    first = slices[0]
    left = float(first.ImagePositionPatient[0]) + i * float(first.PixelSpacing[1]) * first.ImageOrientationPatient[0]
    assert left == pytest.approx(-right, abs=0.01)
    behind = float(first.ImagePositionPatient[1]) + j * float(first.PixelSpacing[0])
    assert behind == pytest.approx(-anterior, abs=0.01)
    up = float(first.ImagePositionPatient[2]) + k * SPACING[0]
    assert up == pytest.approx(superior, abs=0.01)


def test_dicom_radiograph_is_the_png_upside_down_in_brightness():
    picture = render_radiograph(patient_with(), 2.8, np.random.default_rng(0))
    grey = np.asarray(Picture.open(io.BytesIO(files.png_bytes(picture))))
    data = files.dx_bytes(picture, spacing_mm=2.8, patient_id="p", words=("x",))
    dataset = pydicom.dcmread(io.BytesIO(data))
    assert dataset.PhotometricInterpretation == "MONOCHROME1" and list(dataset.PatientOrientation) == ["L", "F"]
    assert [float(v) for v in dataset.PixelSpacing] == [2.8, 2.8]
    np.testing.assert_allclose(1 - dataset.pixel_array / 4095, grey / 255, atol=0.003)


def test_marker_stands_on_the_patients_right():
    picture = render_radiograph(patient_with(), 2.8, np.random.default_rng(0))
    assert (picture[:16, :16] == 1).sum() == sum(
        row.count("#") for row in ("####.", "#...#", "#...#", "####.", "#.#..", "#..#.", "#...#")
    )
    assert picture[:16, -8:].max() < 0.3
