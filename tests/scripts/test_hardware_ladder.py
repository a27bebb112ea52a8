"""The table of docs/scale.md is the one that the estimate of memory gives."""

from dataclasses import replace
from pathlib import Path

from medvlm.model.loading import build_config
from medvlm.scripts.hardware_ladder import (
    BEGIN,
    END,
    HARDWARE,
    MODELS,
    VISION,
    VOCABULARY,
    WAYS,
    curriculum_of,
    table,
)
from medvlm.train.plan_memory import estimate_memory
from medvlm.train.plan_stage import shaped

PAGE = Path(__file__).resolve().parents[2] / "docs" / "scale.md"


def test_the_committed_table_is_that_of_the_estimate():
    page = PAGE.read_text(encoding="utf-8")
    committed = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    # One model of the four: the others take the same code, and minutes.
    header, rule, *rows = table(["2B"]).splitlines()
    assert committed[:2] == [header, rule]
    assert [line for line in committed if "| 2B |" in line] == rows, (
        "run python -m medvlm.scripts.hardware_ladder --write docs/scale.md"
    )
    for hardware in HARDWARE:
        for model in MODELS:
            assert any(line.startswith(f"| {hardware} | {model} |") for line in committed), (hardware, model)


def test_processes_that_share_a_pack_need_less_for_the_decoder_alone():
    config = build_config(VISION, {"hidden_size": 4096}, {"config": MODELS["2B"]}, VOCABULARY, VOCABULARY - 1)
    stage = WAYS["LoRA"]
    model = shaped(config, stage)[0]
    curriculum = curriculum_of(stage, {"zero_stage": 2}, 65536)
    shared = replace(curriculum, engine=replace(curriculum.engine, sequence_parallel=4))
    alone, quarter = (estimate_memory(model, c, stage, 4).parts for c in (curriculum, shared))
    assert alone["activations"] / 4 < quarter["activations"] < alone["activations"]
    assert {name: size for name, size in alone.items() if name != "activations"} == {
        name: size for name, size in quarter.items() if name != "activations"
    }
