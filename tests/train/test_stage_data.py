"""What a stage refuses of its rows: by objective, by source, counted once."""

import json

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.rendering import Renderer
from medvlm.train.config import DataConfig, LearningRates, Lora, Source, Stage
from medvlm.train.data import prepare_data


def row(number, *, pair=False, **changes):
    answer = [{"role": "assistant", "content": "no nodule"}]
    asked = [{"role": "user", "content": "Is there a nodule?"}]
    data = {
        "sample_id": f"s{number}", "patient_id": f"p{number}", "study_id": f"p{number}", "source": "t",
        "licence": "CC0-1.0", "split": "train", "messages": asked if pair else asked + answer,
    }  # fmt: skip
    if pair:
        wrong = [{"role": "assistant", "content": "a nodule"}]
        data["preference"] = {"chosen": answer, "rejected": wrong, "made_by": "test"}
    return data | changes


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def stage_of(*names, objective="supervised", weights=None, **changes):
    sources = tuple(
        Source(manifest=name, weight=weight) for name, weight in zip(names, weights or [1.0] * len(names), strict=True)
    )
    trained = {"lora": Lora()} if objective == "preference" else {"learning_rate": LearningRates(text=1e-3)}
    return Stage(name="a", mixture=sources, objective=objective, **{"steps": 1, **changes}, **trained)


@pytest.fixture
def prepare(tmp_path, processor):
    def prepared(stage, **config):
        return prepare_data(
            stage, DataConfig(root=str(tmp_path), **config), Renderer(processor, tmp_path), seed=0,
            lengths_folder=tmp_path / "lengths",
        )  # fmt: skip

    return prepared


def test_what_one_objective_has_measured_another_does_not_take(tmp_path, prepare):
    """The same manifest in two stages, which share the folder of lengths."""
    write(tmp_path / "rows.jsonl", [row(n, pair=n % 2 == 1) for n in range(20)])
    conversations = prepare(stage_of("rows.jsonl"), quarantine_limit=1)
    pairs = prepare(stage_of("rows.jsonl", objective="preference"), quarantine_limit=1)
    assert sorted(i for pack in conversations.plan.round(0) for i in pack) == list(range(0, 20, 2))
    assert sorted(i for pack in pairs.plan.round(0) for i in pack) == list(range(1, 20, 2))


def test_a_bad_row_of_a_source_that_is_drawn_seldom_does_not_stop_the_stage(tmp_path, prepare):
    write(tmp_path / "many.jsonl", [row(n) for n in range(300)])
    write(tmp_path / "few.jsonl", [row(n, split="test" if n < 600 else "train") for n in range(300, 610)])
    data = prepare(stage_of("many.jsonl", "few.jsonl", weights=[600.0, 1.0]))
    (drawn,) = [i for i in data.plan.mixture.round(0).tolist() if i >= 300]
    assert drawn < 600, "the only row of that source in this round is one of the bad"
    assert drawn not in {i for pack in data.plan.round(0) for i in pack}
    assert len(data.quarantine) == 1


def test_a_source_of_which_nothing_can_be_used_stops_the_stage_also_when_its_rows_come_again_and_again(
    tmp_path, prepare
):
    write(tmp_path / "many.jsonl", [row(n) for n in range(300)])
    write(tmp_path / "bad.jsonl", [row(n, split="test") for n in range(300, 330)])
    data = prepare(stage_of("many.jsonl", "bad.jsonl"), window=20, quarantine_limit=1)
    with pytest.raises(
        BadSample, match=r"bad\.jsonl: none of 30 rows can train stage 'a'; one of them: .* test sample"
    ):
        list(data.plan.round(0))


def test_a_sample_is_met_once_however_often_it_comes(tmp_path, prepare):
    write(tmp_path / "rows.jsonl", [row(n, split="test" if n % 5 == 0 else "train") for n in range(60)])
    data = prepare(stage_of("rows.jsonl", steps=None, epochs=2.0), window=7, quarantine_limit=1)
    data.steps(data.plan._seen.stage, 1)
    for number in range(3):
        list(data.plan.round(number))
    assert (data.quarantine.met, len(data.quarantine)) == (60, 12)
