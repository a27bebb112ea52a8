"""The list of tasks, and the files of a task unpacked where it looks for them."""

import zipfile

import pytest

from medvlm.eval import fetch, list_tasks
from medvlm.eval.tasks.catalogue import TASKS


def test_every_task_is_listed_with_what_is_on_disk(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    folder = tmp_path / TASKS["vqa-rad"].folder
    folder.mkdir()
    TASKS["vqa-rad"].example(folder)
    assert list_tasks.main(["--root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert all(task.label in said for task in TASKS.values())
    assert "(not the published split)" in said


@pytest.mark.parametrize("name", ["vqa-rad", "slake-zh", "medqa"])
def test_a_task_says_all_of_itself(name, capsys):
    task = TASKS[name]
    assert list_tasks.main([name]) == 0
    said = capsys.readouterr().out
    assert f"{task.n:,}" in said and task.licence.split()[0] in said and "user:" in said
    assert all(fault.split()[0] in said for fault in task.faults)
    assert list_tasks.main(["vqa-red"]) == 2


def test_archives_are_unpacked_once_and_whole(tmp_path):
    with zipfile.ZipFile(tmp_path / "imgs.zip", "w") as archive:
        archive.writestr("imgs/1/source.jpg", b"one")
        archive.writestr("imgs/2/source.jpg", b"two")
    assert fetch.unpack(tmp_path / "imgs.zip") == 2 and fetch.unpack(tmp_path / "imgs.zip") == 0
    (tmp_path / "imgs/1/source.jpg").write_bytes(b"on")  # as a killed copy leaves it
    assert fetch.unpack(tmp_path / "imgs.zip") == 1
    assert (tmp_path / "imgs/1/source.jpg").read_bytes() == b"one"
    assert not list(tmp_path.rglob("*.part"))


def test_archives_that_lead_out_or_are_damaged_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../out.txt", b"x")
    with pytest.raises(ValueError, match="leads out of its folder"):
        fetch.unpack(tmp_path / "bad.zip")
    assert not (tmp_path.parent / "out.txt").exists()
    (tmp_path / "cut.zip").write_bytes((tmp_path / "bad.zip").read_bytes()[:20])
    with pytest.raises(ValueError, match="is damaged"):
        fetch.unpack(tmp_path / "cut.zip")


def test_without_the_hub_it_says_where_the_files_are(tmp_path, capsys):
    hubless = next(task for task in TASKS.values() if task.hub is None)
    assert fetch.main([hubless.name, "--root", str(tmp_path)]) == 2
    assert "is on no hub: get it from" in capsys.readouterr().err
    on_hub = next(task for task in TASKS.values() if task.hub is not None and task.access == "open")
    assert fetch.main([on_hub.name, "--root", str(tmp_path)]) == 2  # HF_HUB_OFFLINE is set in tests
    assert f"the hub did not give {on_hub.hub}" in capsys.readouterr().err
