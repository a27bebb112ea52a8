"""Every task: its example is read, its questions can be asked, its fingerprint is the one that its version promises."""

import json
import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from medvlm.data_recipes.errors import BadSample
from medvlm.data_recipes.sample import Sample
from medvlm.eval.task import Task, example_rows, fingerprint, ids_sha256, load
from medvlm.eval.tasks.catalogue import TASKS, task_named

SNAPSHOTS = Path(__file__).parent / "snapshots"
"""Per task: version, fingerprint, and the first prompts. MEDVLM_SNAPSHOT=1 writes those that are missing, or whose
version has risen."""


@cache
def rows_of(task: Task) -> list[dict]:
    """Made once for the two tests that only read them; that a second making is the same is tested below."""
    return example_rows(task)


def snapshot(task: Task) -> dict:
    rows = rows_of(task)
    prompts: dict[str, str] = {}
    for row in rows:
        text = "\n".join(p["text"] if p["type"] == "text" else f"<{p['type']}>" for p in row["messages"][-1]["content"])
        prompts.setdefault(f"{row['question']['kind']}/{row['question']['topic']}", text)
    return {"version": task.version, "fingerprint": fingerprint(task, rows), "prompts": dict(list(prompts.items())[:4])}


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_prompts_change_only_with_the_version(task):
    path = SNAPSHOTS / f"{task.name}.json"
    now = snapshot(task)
    if os.environ.get("MEDVLM_SNAPSHOT") and (
        not path.exists() or json.loads(path.read_text())["version"] < task.version
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    assert path.exists(), "write it with MEDVLM_SNAPSHOT=1, and read it"
    assert now == json.loads(path.read_text(encoding="utf-8")), (
        f"what {task.name} asks has changed: raise its version, then write the snapshot with MEDVLM_SNAPSHOT=1"
    )


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_task_says_what_one_must_know(task):
    for field in ("title", "about", "folder", "n_source", "licence", "url", "citation"):
        assert getattr(task, field).strip(), f"{task.name}: {field} is empty"
    assert task.n > 0 and task.version >= 1 and len(rows_of(task)) >= 12
    assert len({row["patient_id"] for row in rows_of(task)}) >= 3, "an interval needs several patients"
    for figure in task.published:
        assert figure.source.strip() and figure.how.strip()


def test_names_are_unique_and_known():
    assert [task.name for task in TASKS.values()] == list(TASKS)
    with pytest.raises(ValueError, match="no task 'vqa-red'; is it vqa-rad"):
        task_named("vqa-red")


def test_another_split_is_refused_unless_told(tmp_path):
    task = TASKS["vqa-rad"]
    task.example(tmp_path)
    with pytest.raises(
        ValueError, match=r"is not the published split of vqa-rad: \d+ questions can be asked and 0 rows"
    ):
        load(task, tmp_path)
    found = load(task, tmp_path, partial=True)
    assert found.differs and len(found.items) >= 12
    whole = replace(task, n=len(found.items), ids_sha256=None)
    assert load(whole, tmp_path).differs == ""
    ids = [item.sample.sample_id for item in found.items]
    assert load(replace(whole, ids_sha256=ids_sha256(ids)), tmp_path).differs == ""
    with pytest.raises(ValueError, match="but not the same ones"):
        load(replace(whole, ids_sha256=ids_sha256([*ids[1:], "another"])), tmp_path)
    with pytest.raises(ValueError, match="no question of task vqa-rad can be asked from"):
        (tmp_path / "empty").mkdir()
        load(task, tmp_path / "empty", partial=True)


def test_a_task_that_misreads_its_rows_counts_them(tmp_path):
    task = TASKS["vqa-rad"]
    task.example(tmp_path)
    samples = [sample for sample in task.read(tmp_path) if isinstance(sample, Sample)]
    bad = BadSample("the picture is missing", where="x:1", mend="get it")
    broken = replace(
        task,
        read=lambda _: iter([samples[0], bad, samples[0], replace(samples[1], question=None)]),
        n=1,
        ids_sha256=None,
    )
    found = load(broken, tmp_path)
    assert len(found.items) == 1 and [one.reason[:9] for one in found.bad] == ["the pictu", "sample_id", "the sampl"]


def test_a_change_of_wording_changes_the_fingerprint(tmp_path):
    task = TASKS["vqa-rad"]

    def reworded(folder):
        for sample in task.read(folder):
            turn = sample.turns[-1]
            content = tuple(part + " Please." if isinstance(part, str) else part for part in turn.content)
            yield replace(sample, turns=(*sample.turns[:-1], replace(turn, content=content)))

    assert fingerprint(replace(task, read=reworded)) != fingerprint(task) == fingerprint(task)
