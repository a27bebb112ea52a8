"""The table of docs/scale.md is the one that the estimate of memory gives."""

from pathlib import Path

from medvlm.scripts.hardware_ladder import BEGIN, END, HARDWARE, MODELS, table

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
