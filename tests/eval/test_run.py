"""Whole runs on real files: the ruler is right, resumes, repeats to the byte, and says what it could not do."""

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import a_video, a_volume, an_image, tiny_model
from evaluation_fixtures import a_sample, samples_of, write_manifest, write_visuals

from medvlm.data_recipes.sample import Question, Sample, Turn, VisualRef, visuals_of
from medvlm.eval import run
from medvlm.eval.controls import patient_of, swap_partners, with_visuals, without_visuals
from medvlm.eval.loaded_model import CheckpointModel
from medvlm.eval.models import ConstantModel, OracleModel, ReplayModel, Request, Response
from medvlm.eval.plan import make_plan, read_items, take
from medvlm.eval.rows import append_rows, drop_torn_line, read_rows
from medvlm.eval.run_folder import responses_of
from medvlm.eval.stages import rescore, rescore_main
from medvlm.model import save_checkpoint

PATIENTS = 8
IMAGE = run.Settings(conditions=("image",))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_visuals(folder, PATIENTS)
    text = Question(kind="closed", answers=("yes",), choices=("yes", "no"), topic="presence")
    samples = [sample for patient in range(PATIENTS) for sample in samples_of(patient)]
    return write_manifest(
        folder / "test.jsonl", [*samples, a_sample(0, "text", "q", "Report: a nodule. Is there?", text, False)]
    )


@pytest.fixture(scope="module")
def perfect(manifest, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("oracle")
    return out, run.evaluate(OracleModel(), [manifest], out)


def test_oracle_is_perfect_on_everything(perfect):
    out, metrics = perfect
    shares = {k: v for k, v in metrics["headline"].items() if not k.startswith(("majority", "box"))}
    assert len(shares) > 15 and all(value == pytest.approx(1.0, abs=1e-9) for value in shares.values())
    assert metrics["counts"]["unparsed"] == 0 and metrics["run"]["quarantined"] == 0
    assert metrics["not_asked"]["swapped"] == {"shows no visual, so a control would repeat the question": 1}
    report = (out / "report.html").read_text(encoding="utf-8")
    assert report.count('type="text/plain" id="medium-') >= 20  # of 24 visuals, each once
    assert "http://" not in report.replace("http://www.w3.org", "") and "https://" not in report
    # the oracle also answers without the image, so nothing shows that it looks
    assert metrics["looks_at_the_image"] == {"2d": False, "3d": False, "video": False}


def test_constant_by_hand(manifest, tmp_path):
    metrics = run.evaluate(ConstantModel("yes"), [manifest], tmp_path / "run", IMAGE, gallery_size=2)
    headline = metrics["headline"]
    # presence: half of the patients; side: "yes" cannot be read there; the lettered zone counts apart
    assert headline["closed_accuracy_2d"] == pytest.approx((PATIENTS / 2) / (2 * PATIENTS))
    assert headline["choice_accuracy_2d"] == 0.0
    assert headline["side_accuracy_2d"] == 0.0
    # per dimension: 8 rows a group are fewer than 10, so the best place: the first of two (8 of 16)
    assert headline["majority_accuracy_2d"] == pytest.approx(8 / 16)
    assert headline["finding_f1"] == 0.0 and headline["open_token_f1"] == 0.0
    side = [
        r for r in metrics["table"] if r["topic"] == "side" and r["dimension"] == "2d" and r["condition"] == "image"
    ]
    assert side[0]["unparsed"] == PATIENTS and side[0]["n"] == PATIENTS


def test_empty_answers_are_zero_and_counted(manifest, tmp_path):
    metrics = run.evaluate(ConstantModel(""), [manifest], tmp_path / "run", IMAGE, gallery_size=2)
    asked = [v for k, v in metrics["headline"].items() if v is not None and not k.startswith("majority")]
    assert len(asked) >= 10 and set(asked) == {0.0}
    assert metrics["counts"]["empty"] == metrics["counts"]["responses"] == 15 * PATIENTS + 1


class Looking:
    """Answers presence from the picture itself, and nothing without one."""

    name = "looking"

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers  # bytes of the visual -> yes or no

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        return [Response(text=self.answers.get(fingerprint(request), "")) for request in requests]


def fingerprint(request: Request) -> str:
    return str([np.asarray(getattr(v, "pixels", 0)).sum() for v in request.visuals])


def test_a_model_that_looks_is_told_from_one_that_does_not(tmp_path):
    patients = 40
    write_visuals(tmp_path, patients)
    # drawn, not alternating: a cyclic swap of alternating answers could agree or disagree throughout
    truth = np.random.default_rng(0).random(patients) < 0.5
    samples = [
        a_sample(p, "image", "presence", "Is there a nodule?", Question(
            kind="closed", answers=("yes" if truth[p] else "no",), choices=("yes", "no"), topic="presence"))
        for p in range(patients)
    ]  # fmt: skip
    manifest = write_manifest(tmp_path / "m.jsonl", samples)
    seen: dict[str, str] = {}

    class Learning(Looking):
        def answer(self, requests: Sequence[Request]) -> list[Response]:
            for request in requests:
                seen[fingerprint(request)] = "yes" if truth[int(request.sample_id.split("-")[0])] else "no"
            return super().answer(requests)

    run.evaluate(Learning({}), [manifest], tmp_path / "learn", IMAGE, gallery_size=2)
    metrics = run.evaluate(Looking(seen), [manifest], tmp_path / "run", gallery_size=2)
    assert metrics["headline"]["closed_accuracy_2d"] == 1.0
    assert metrics["headline"]["no_image_accuracy_2d"] == 0.0
    assert metrics["headline"]["swapped_image_accuracy_2d"] < 0.8
    assert metrics["looks_at_the_image"] == {"2d": True, "3d": None, "video": None}


def test_stages_repeat_to_the_byte(perfect, manifest):
    out, _ = perfect
    names = ("extractions.jsonl", "scores.jsonl", "metrics.json", "report.html")
    before = {name: (out / name).read_bytes() for name in names}
    rescore(out)
    assert {name: (out / name).read_bytes() for name in names} == before


def test_the_order_in_which_answers_came_changes_nothing(perfect, tmp_path):
    """Batches, processes and earlier starts decide the order of the lines, and a run folder may hold old answers."""
    out = shutil.copytree(perfect[0], tmp_path / "run")
    names = ("extractions.jsonl", "scores.jsonl", "metrics.json", "report.html")
    path = out / "responses.rank0.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    old = json.loads(lines[0]) | {"request_id": "0" * 24}
    path.write_text(json.dumps(old) + "\n" + "".join(reversed(lines)), encoding="utf-8")
    rescore(out)
    for name in names:
        assert (out / name).read_bytes() == (perfect[0] / name).read_bytes(), name


class Counting(ConstantModel):
    asked = 0

    def answer(self, requests: Sequence[Request]) -> list[Response]:
        Counting.asked += len(requests)
        return super().answer(requests)


class Dying(Counting):
    def answer(self, requests: Sequence[Request]) -> list[Response]:
        if Counting.asked >= 20:
            raise KeyboardInterrupt
        return super().answer(requests)


def test_resume_asks_only_the_rest_and_ends_with_the_same_bytes(manifest, tmp_path):
    whole = run.evaluate(ConstantModel("no"), [manifest], tmp_path / "whole", IMAGE, gallery_size=2)
    Counting.asked = 0
    with pytest.raises(KeyboardInterrupt):
        run.evaluate(Dying("no"), [manifest], tmp_path / "part", IMAGE, gallery_size=2, chunk_size=10)
    assert Counting.asked == 20 == len(read_rows(tmp_path / "part" / "responses.rank0.jsonl"))
    with (tmp_path / "part" / "responses.rank0.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"request_id": "torn')  # as a killed process leaves it
    resumed = run.evaluate(Counting("no"), [manifest], tmp_path / "part", IMAGE, gallery_size=2, chunk_size=7)
    assert Counting.asked == whole["counts"]["responses"]
    assert resumed == whole
    for name in ("responses.rank0.jsonl", "scores.jsonl", "metrics.json"):
        assert (tmp_path / "part" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_run_folder_belongs_to_one_model(perfect, manifest):
    with pytest.raises(ValueError, match="holds the answers of model 'oracle'"):
        run.evaluate(ConstantModel("yes"), [manifest], perfect[0])


def test_replay_repeats_a_run(perfect, manifest, tmp_path):
    out, metrics = perfect
    two = run.Settings(conditions=("image", "swapped"))
    replay = ReplayModel(out / "responses.rank0.jsonl")
    again = run.evaluate(replay, [manifest], tmp_path / "replay", two, gallery_size=2)
    assert again["table"] == [row for row in metrics["table"] if row["condition"] in two.conditions]
    assert len({row["condition"] for row in again["table"]}) == 2
    with pytest.raises(ValueError, match="does not answer"):
        run.evaluate(
            ReplayModel(out / "responses.rank0.jsonl"), [manifest], tmp_path / "other", run.Settings(max_new_tokens=3)
        )


def test_swapping_never_shows_the_same_patient(manifest):
    items, _ = read_items([manifest])
    by_path = {ref.path: item.sample.patient_id for item in items for ref in item.sample.visuals()}
    for seed in range(5):
        asks = make_plan(items, conditions=["swapped"], seed=seed).asks
        assert len(asks) == 15 * PATIENTS
        for ask in asks:
            (ref,) = visuals_of(ask.turns)
            assert by_path[ref.path] != ask.item.sample.patient_id
            assert ref.kind == ask.item.sample.visuals()[0].kind


def test_swapping_uses_each_patient_once_and_no_shared_picture(manifest):
    items, _ = read_items([manifest])
    samples = [item.sample for item in items if item.sample.sample_id.endswith("image-side")]
    partners = swap_partners(samples, seed=4)
    assert len({visuals[0].path for visuals in partners.values()}) == PATIENTS == len(partners)
    assert partners == swap_partners(reversed(samples), seed=4)
    assert swap_partners(samples[:1], seed=0) == {}
    twin = Sample(**{**samples[0].__dict__, "patient_id": "another", "sample_id": "twin"})
    assert patient_of(twin) != patient_of(samples[0]) and swap_partners([samples[0], twin], seed=0) == {}


def test_swapping_shares_no_picture_of_several():
    """A pair of pictures of which one is the patient's own, filed under another number, shows what was asked about."""

    def pair(patient: str, *names: str) -> Sample:
        shown = tuple(VisualRef(kind="image", path=name) for name in names)
        turns = (Turn(role="user", content=(*shown, "Is there?")),)
        return Sample(**{**samples_of(0)[0].__dict__, "patient_id": patient, "sample_id": patient, "turns": turns})

    one, other, third = pair("1", "a.png", "b.png"), pair("2", "c.png", "b.png"), pair("3", "d.png", "e.png")
    assert swap_partners([one, other], seed=0) == {}
    for seed in range(4):
        found = swap_partners([one, other, third], seed=seed)
        assert found["1"] == found["2"] == third.visuals() and found["3"] in (one.visuals(), other.visuals())


def test_turns_of_the_controls():
    turns = samples_of(0)[0].turns
    assert visuals_of(without_visuals(turns)) == () and without_visuals(turns)[0].text == "Is there a nodule?"
    only = (Turn(role="user", content=visuals_of(turns)),)
    assert without_visuals(only)[0].content == ("",)
    with pytest.raises(ValueError, match="holds 1 visuals, got 0"):
        with_visuals(turns, ())


def test_bad_visuals_are_quarantined_and_the_rest_is_scored(manifest, tmp_path, capsys):
    folder = manifest.parent
    samples = samples_of(0, ("image",))
    absent = VisualRef(kind="image", path="absent.png")
    turns = (Turn(role="user", content=(absent, "Is there?")),)
    broken = Sample(**{**samples[0].__dict__, "sample_id": "broken", "turns": turns})
    mixed = write_manifest(folder / "mixed.jsonl", [*samples, broken, samples[1]])
    metrics = run.evaluate(ConstantModel("yes"), [mixed], tmp_path / "mixed", IMAGE, gallery_size=2)
    rows = read_rows(tmp_path / "mixed" / "quarantine.jsonl")
    assert metrics["counts"]["responses"] == 5
    assert [(r["sample_id"], r["stage"]) for r in rows] == [("0-image-side", "manifest"), ("broken", "generate")]
    assert "absent.png" in (tmp_path / "mixed" / "report.html").read_text(encoding="utf-8")

    hopeless = write_manifest(folder / "hopeless.jsonl", [broken])
    arguments = ["--model", "constant:yes", "--data", str(hopeless), "--out", str(tmp_path / "none")]
    assert run.main([*arguments, "--conditions", "image"]) == 2
    assert "none of 1 requests was answered" in capsys.readouterr().err
    # Without an image it can be asked, but no visual was ever shown.
    assert run.main([*arguments, "--conditions", "image", "no_image"]) == 1
    assert "not one visual could be shown" in capsys.readouterr().err


def test_unscorable_rows_are_refused(manifest, tmp_path):
    sample = samples_of(0, ("image",))[1]
    wrong = Sample(
        **{**sample.__dict__, "question": Question(kind="closed", answers=("top",), choices=("left", "right"))}
    )
    odd = Question(kind="report", answers=("x",), findings=({"kind": "nodule"},))
    path = write_manifest(tmp_path / "wrong.jsonl", [wrong, Sample(**{**sample.__dict__, "question": odd})])
    items, bad = read_items([path])
    assert not items and "none of the choices" in bad[0].reason and "findings[0]" in bad[1].reason
    with pytest.raises(ValueError, match="can be asked; first reason"):
        run.evaluate(ConstantModel("left"), [path], tmp_path / "run")


def test_limits(manifest):
    items, _ = read_items([manifest])
    few = take(items, 7, seed=0)
    assert len(few) == 7 and few == take(items, 7, seed=0) != take(items, 7, seed=1)
    plan = make_plan(items, conditions=["image", "no_image"], control_report_limit=2)
    reports = [a.condition for a in plan.asks if a.item.question.kind == "report"]
    assert reports.count("image") == 3 * PATIENTS and reports.count("no_image") == 2
    assert len({a.request_id for a in plan.asks}) == len(plan.asks)


def test_command_line(manifest, tmp_path, capsys):
    arguments = ["--data", str(manifest), "--out", str(tmp_path / "run"), "--limit", "10", "--gallery", "3"]
    assert run.main(["--model", "oracle", *arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "first request" in printed and not (tmp_path / "run").exists()
    assert run.main(["--model", "oracle", *arguments]) == 0
    assert "100.0 %" in capsys.readouterr().out
    assert rescore_main([str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["run"]["model"] == "oracle"


def test_rows_survive_a_torn_tail(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [{"a": 1}])
    path.open("a", encoding="utf-8").write('{"a"')
    with pytest.raises(ValueError, match="2 is not JSON"):
        read_rows(path)
    assert drop_torn_line(path) and read_rows(path) == [{"a": 1}] and not drop_torn_line(path)


def test_checkpoint_answers_do_not_depend_on_the_batch(processor, tmp_path):
    save_checkpoint(tmp_path / "checkpoint", tiny_model(processor), processor)
    torch.set_num_threads(1)
    shown = {"image": an_image(1), "volume": a_volume(2), "video": a_video(3)}
    text_only = a_sample(0, "text", "q", "Is there?", samples_of(0)[0].question, shown=False)
    requests = [
        Request(
            request_id=str(number),
            sample_id=sample.sample_id,
            turns=sample.turns,
            question=sample.question,
            visuals=tuple(shown[ref.kind] for ref in sample.visuals()),
            max_new_tokens=6 + 3 * (number % 2),
        )
        for number, sample in enumerate([*samples_of(0), text_only])
    ]
    alone = CheckpointModel(tmp_path / "checkpoint", device="cpu", batch_size=1).answer(requests)
    together = CheckpointModel(tmp_path / "checkpoint", device="cpu", batch_size=5).answer(requests)
    backwards = CheckpointModel(tmp_path / "checkpoint", device="cpu", batch_size=16).answer(requests[::-1])[::-1]
    assert alone == together == backwards
    assert len({response.text for response in alone}) > 3 and all(response.text for response in alone)
    assert {response.finish_reason for response in alone} <= {"stop", "length"}


def test_rows_torn_within_a_letter_and_halves_of_letters(tmp_path):
    """A killed process leaves a line of Chinese that ends in the middle of a letter; a server writes half an emoji."""
    path = tmp_path / "responses.rank1.jsonl"
    append_rows(path, [{"request_id": "a", "text": "half of it: \ud83d"}])
    with path.open("ab") as file:
        file.write('{"request_id": "b", "text": "左'.encode()[:-1])
    found = responses_of(tmp_path)
    assert [row["request_id"] for row in found] == ["a"] and found[0]["text"].startswith("half of it: \ufffd")
    with pytest.raises(ValueError, match=r"rank1\.jsonl:2 is not JSON"):
        read_rows(path)
