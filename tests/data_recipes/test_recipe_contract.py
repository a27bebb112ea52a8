"""What holds for every recipe, shown by the eight that have a fixture in their published layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from recipe_fixtures import FIXTURES
from recipe_fixtures.writing import Fixture

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.manifest import verify, write_manifest
from medvlm.data_recipes.readers import read
from medvlm.data_recipes.recipe import Recipe
from medvlm.data_recipes.recipes import RECIPES
from medvlm.data_recipes.sample import Sample, from_json, to_json
from medvlm.data_recipes.walk import walk_folder
from medvlm.model.visual import kind_of

GOLDEN = Path(__file__).resolve().parents[1] / "recipe_fixtures" / "golden"
each = pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.recipe)


def recipe_of(fixture: Fixture) -> Recipe:
    return next(recipe for recipe in RECIPES if recipe.name == fixture.recipe)


def build(fixture: Fixture, folder: Path) -> tuple[list[Sample], list[BadSample]]:
    rows = list(recipe_of(fixture).build(folder))
    return [r for r in rows if isinstance(r, Sample)], [r for r in rows if isinstance(r, BadSample)]


@pytest.fixture
def whole(fixture: Fixture, tmp_path: Path) -> Path:
    fixture.write(tmp_path)
    return tmp_path


@each
def test_it_alone_matches_its_layout(fixture: Fixture, whole: Path) -> None:
    assert [recipe.name for recipe in RECIPES if recipe.matches(whole)] == [fixture.recipe]
    recipe = recipe_of(fixture)
    owned = recipe.files(whole)
    assert {path for path in whole.rglob("*") if path.is_file()} == owned, "every published file belongs to the dataset"


@each
def test_a_whole_folder_is_built_without_refusals(fixture: Fixture, whole: Path) -> None:
    samples, refused = build(fixture, whole)
    assert refused == [] and len(samples) == fixture.samples
    assert len({sample.sample_id for sample in samples}) == len(samples)
    assert {sample.source for sample in samples} == {fixture.recipe}


@each
def test_golden_samples(fixture: Fixture, whole: Path) -> None:
    """One training row and one of evaluation, key by key."""
    samples, _ = build(fixture, whole)
    expected = json.loads((GOLDEN / f"{fixture.recipe}.json").read_text(encoding="utf-8"))
    rows = {sample.sample_id: json.dumps(to_json(sample), ensure_ascii=False) for sample in samples}
    assert {row["split"] for row in expected} >= {"train", "test"}
    for row in expected:
        assert json.loads(rows[row["sample_id"]].replace(str(whole), "{folder}")) == row


@each
def test_a_spoilt_folder_says_what_is_wrong(fixture: Fixture, whole: Path) -> None:
    fixture.spoil(whole)
    samples, refused = build(fixture, whole)
    assert [str(bad).replace(str(whole), "{folder}") for bad in refused] == list(fixture.refusals)
    assert 0 < len(samples) < fixture.samples, "the other rows are kept"


@each
def test_every_row_survives_a_manifest(fixture: Fixture, whole: Path) -> None:
    samples, _ = build(fixture, whole)
    for sample in samples:
        assert from_json(json.loads(json.dumps(to_json(sample))), where="again") == sample
    write_manifest(whole / "out.jsonl", samples)
    assert verify(whole / "out.jsonl", allow_official=True) == []


@each
def test_every_visual_loads(fixture: Fixture, whole: Path) -> None:
    samples, _ = build(fixture, whole)
    for sample in samples:
        for ref in sample.visuals():
            visual = read(ref, whole)
            assert kind_of(visual) == ref.kind and visual.modality == ref.options.get("modality", visual.modality)
            assert getattr(visual, "unit", None) == ref.options.get("unit", getattr(visual, "unit", None))


@each
def test_patients_and_turns(fixture: Fixture, whole: Path) -> None:
    samples, _ = build(fixture, whole)
    splits: dict[str, set[str]] = {}
    for sample in samples:
        if not sample.metadata.get("official_split"):
            splits.setdefault(sample.patient_id, set()).add(sample.split)
        last = sample.turns[-1].role
        assert (last == "assistant") == (sample.split == "train") == (sample.question is None)
        assert last == "assistant" or (last == "user" and sample.question is not None)
    assert all(len(found) == 1 for found in splits.values())
    assert {sample.split for sample in samples} >= {"train", "test"}


@each
def test_the_walk_finds_it_below_another_folder(fixture: Fixture, tmp_path: Path) -> None:
    fixture.write(tmp_path / "downloads" / "some name")
    result = walk_folder(tmp_path)
    assert result.quarantine == () and len(result.samples) == fixture.samples
    assert result.counts["other_files"] == 0 and set(result.counts["by_source"]) == {fixture.recipe}


def test_every_recipe_says_what_its_page_needs() -> None:
    for recipe in RECIPES:
        for field in ("about", "layout", "questions", "faults"):
            assert getattr(recipe, field), f"{recipe.name} lacks {field!r}"
