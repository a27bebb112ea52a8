"""Answers from files of others, and random ones."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from evaluation_fixtures import samples_of, write_manifest, write_visuals

from medvlm.data_recipes.sample import Question
from medvlm.eval.generate import generate
from medvlm.eval.models import OracleModel, RandomModel, Request
from medvlm.eval.predictions import PredictionsModel, unused
from medvlm.eval.run import Settings, evaluate
from medvlm.eval.run_folder import read_plan, responses_of


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_visuals(folder, 4)
    return write_manifest(folder / "m.jsonl", [s for p in range(4) for s in samples_of(p, ("image",))])


@pytest.fixture(scope="module")
def known(manifest, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("oracle")
    return evaluate(OracleModel(), [manifest], out, Settings(conditions=("image",)), gallery_size=1)


def right() -> dict[str, str]:
    return {s.sample_id: s.question.answers[0] for p in range(4) for s in samples_of(p, ("image",))}


def written(path: Path, form: str, texts: dict[str, str]) -> Path:
    path = path.with_suffix(f".{form.partition('-')[0]}")
    match form:
        case "jsonl":
            path.write_text("".join(json.dumps({"sample_id": n, "text": t}) + "\n" for n, t in texts.items()))
        case "csv":
            path.write_text("study_id,report\n" + "".join(f'"{n}","{t}"\n' for n, t in texts.items()))
        case "json-list":
            path.write_text(json.dumps([{"id": n, "prediction": t} for n, t in texts.items()]))
        case "json-object":
            path.write_text(json.dumps(texts))
        case "json-rexrank":
            path.write_text(
                json.dumps({n: {"model_prediction": t, "report": "the reference"} for n, t in texts.items()})
            )
    return path


@pytest.mark.parametrize("form", ["jsonl", "csv", "json-list", "json-object", "json-rexrank"])
def test_every_form_is_read_and_controls_are_not_asked(manifest, known, tmp_path, form):
    model = PredictionsModel(written(tmp_path / "p", form, right()))
    metrics = evaluate(model, [manifest], tmp_path / "run", gallery_size=1)
    assert metrics["run"]["conditions"] == ["image"] and metrics["counts"]["responses"] == 20
    assert metrics["headline"] == known["headline"]


def test_a_missing_prediction_is_refused_and_an_empty_one_is_wrong(manifest, tmp_path):
    texts = right()
    empty = {name: "" if name == "0-image-presence" else text for name, text in texts.items()}
    metrics = evaluate(
        PredictionsModel(written(tmp_path / "e", "jsonl", empty)), [manifest], tmp_path / "e", gallery_size=1
    )
    assert metrics["headline"]["closed_accuracy_2d"] == 7 / 8 and metrics["counts"]["empty"] == 1
    del texts["0-image-presence"]
    model = PredictionsModel(written(tmp_path / "m", "jsonl", texts))
    with pytest.raises(ValueError, match=r"has no prediction for 1 of .* samples, first '0-image-presence'"):
        evaluate(model, [manifest], tmp_path / "m", gallery_size=1)


def test_ids_without_the_name_of_the_data_set(tmp_path):
    model = PredictionsModel(written(tmp_path / "p", "json-object", {"12": "left", "x/13": "right", "other": "no"}))
    assert model._of("vqa-rad/12") == "left" and model._of("x/13") == "right" and model._of("vqa-rad/14") is None
    assert unused(model, ["vqa-rad/12", "x/13"]) == ["other"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "a.jsonl",
            '{"sample_id": "1", "text": "a"}\n{"sample_id": "1", "text": "b"}\n',
            "2: '1' was predicted before",
        ),
        ("a.jsonl", '{"name": "1", "text": "a"}\n', "has none of sample_id, id"),
        ("a.jsonl", '{"id": "1", "said": "a"}\n', "has none of prediction"),
        ("a.jsonl", '{"id": "1", "text": ["a"]}\n', "is no text"),
        ("a.json", "3", "holds a int"),
        ("a.jsonl", "", "holds no prediction"),
    ],
)
def test_files_that_cannot_be_used_say_why(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        PredictionsModel(tmp_path / name)


def test_random_answers_are_seeded_and_spread(manifest, tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    write_visuals(folder, 40)
    many = write_manifest(folder / "m.jsonl", [s for p in range(40) for s in samples_of(p, ("image",))])
    settings = Settings(conditions=("image",))
    first = evaluate(RandomModel(1), [many], tmp_path / "a", settings, gallery_size=1)
    written = {row["request_id"]: row["text"] for row in responses_of(tmp_path / "a")}
    asks = read_plan(tmp_path / "a")
    for seed in (1, 2):
        (tmp_path / str(seed)).mkdir()
        generate(RandomModel(seed), asks, tmp_path / str(seed), show_progress=False)
        again = {row["request_id"]: row["text"] for row in responses_of(tmp_path / str(seed))}
        assert again.keys() == written.keys() and (again == written) == (seed == 1)
    assert 0.3 < first["headline"]["closed_accuracy_2d"] < 0.7 and 0.1 < first["headline"]["choice_accuracy_2d"] < 0.6
    assert first["headline"]["open_token_f1"] == 0.0


def test_a_file_that_was_written_again_does_not_go_on_in_the_old_folder(manifest, tmp_path):
    """The old answers would be kept under the new file's name."""
    path = written(tmp_path / "p", "jsonl", right())
    evaluate(PredictionsModel(path), [manifest], tmp_path / "run", gallery_size=1)
    again = written(tmp_path / "p", "jsonl", dict.fromkeys(right(), "no"))
    assert again == path
    with pytest.raises(ValueError, match="holds the answers of answering"):
        evaluate(PredictionsModel(again), [manifest], tmp_path / "run", gallery_size=1)


def test_a_sample_predicted_with_and_without_its_data_set_is_refused(tmp_path):
    model = PredictionsModel(written(tmp_path / "p", "json-object", {"12": "left", "vqa-rad/12": "right"}))
    asked = Request(
        request_id="1", sample_id="vqa-rad/12", turns=(), question=Question(kind="open", answers=("left",)), visuals=(),
        max_new_tokens=1,
    )  # fmt: skip
    with pytest.raises(ValueError, match="twice, with and without"):
        model.answer([asked])
