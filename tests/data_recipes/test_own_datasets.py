"""Rows of the ``datasets`` library: a folder of save_to_disk, Parquet files, pictures inside the rows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from own_fixtures import built, picture, read_back, said

from medvlm.data_recipes.own import init
from medvlm.data_recipes.own.build import main

datasets = pytest.importorskip("datasets", reason="needs pip install 'medvlm[datasets]'")

ASK = [{"answer": "answer", "prompt": "{question}", "kind": "vqa"}]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for number in range(2):
        picture(tmp_path / "source" / f"{number}.png", number)
    return tmp_path


def questions(home: Path, count: int = 3):
    columns = {
        "image": [str(home / "source" / f"{number % 2}.png") for number in range(count)],
        "question": ["Is it big?"] * count,
        "answer": ["yes", "no", ""][:count],
        "who": ["p1", "p2", "p3"][:count],
    }
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def test_a_folder_of_save_to_disk_with_splits(home):
    whole = datasets.DatasetDict({"train": questions(home), "test": questions(home, 2)})
    whole.save_to_disk(str(home / "saved"))
    split = {"files": {"train": "train", "test": "test"}}
    samples, refused = built(
        home, format="table", paths=["saved"], ask=ASK, patient={"row": True}, split=split, name="mine"
    )  # fmt: skip
    assert sorted(s.sample_id for s in samples) == [
        "mine/saved/test/1", "mine/saved/test/2", "mine/saved/train/1", "mine/saved/train/2",
    ]  # fmt: skip
    assert [line.split(". Mend")[0] for line in refused] == ["saved/train:3: the answer ('answer') is empty"]
    written = [path for path in (home / "out" / "visuals").rglob("*") if path.is_file()]
    sources = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (home / "source").iterdir()}
    assert {path.stem for path in written} == sources and {path.suffix for path in written} == {".png"}
    assert all(ref.path.startswith("visuals/") for s in samples for ref in s.visuals())
    (home / "out").rename(home / "moved")
    assert len(read_back(home / "moved")[0]) == 4


def test_parquet_and_conversations_with_many_pictures(home):
    rows = {
        "images": [[str(home / "source" / "0.png"), str(home / "source" / "1.png")]],
        "conversations": [[
            {"from": "human", "value": "<image><image>\nWhat has changed?"}, {"from": "gpt", "value": "Nothing."},
        ]],
    }  # fmt: skip
    whole = datasets.Dataset.from_dict(rows)
    media = datasets.Sequence(datasets.Image())
    (home / "folder").mkdir()
    whole.cast_column("images", media).to_parquet(str(home / "folder" / "part-0.parquet"))
    for paths in (["folder"], ["folder/part-0.parquet"]):
        samples, refused = built(home, format="llava", paths=paths)
        assert refused == [] and len(samples) == 1 and len(samples[0].visuals()) == 2
        assert [role for role, _ in said(samples[0])] == ["user", "assistant"]


def test_init_reads_the_columns(home, capsys):
    questions(home, 2).save_to_disk(str(home / "given" / "saved"))
    recipe = home / "recipe.yaml"
    assert init.main([str(home / "given"), "--out", str(recipe)]) == 0
    text = recipe.read_text()
    assert "format: table" in text and '  - "given/saved"' in text and 'prompt: "{question}"' in text
    recipe.write_text(
        text.replace("\nlicence:", "\nlicence: own").replace("\npatient:\n", "\npatient: {column: who}\n")
    )
    assert main([str(recipe), "--out", str(home / "out")]) == 0
    assert len(read_back(home / "out")[0]) == 2


def test_a_folder_that_is_damaged_is_refused(home):
    questions(home, 2).save_to_disk(str(home / "saved"))
    for path in (home / "saved").glob("*.arrow"):
        path.unlink()
    samples, refused = built(home, format="table", paths=["saved"], ask=ASK)
    assert samples == [] and len(refused) == 1 and "saved: datasets cannot read it (" in refused[0]
