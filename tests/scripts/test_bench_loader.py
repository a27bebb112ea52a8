"""The loader bench: whole on small files, and its goals."""

from __future__ import annotations

import json

import pytest

from medvlm.scripts.bench import loader, loader_files
from medvlm.scripts.bench.loader import OURS, Timing, judged, main


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(loader_files, "PICTURES", {"64 grey": (64, 96, 1), "96 colour": (96, 96, 3)})
    monkeypatch.setattr(loader_files, "VOLUME", (8, 40, 40))
    # The peers are measured by hand: starting three libraries would take most of a minute.
    monkeypatch.setattr(loader, "PICTURE_PEERS", {"HF datasets + nothing": (None, "no_such_package")})
    monkeypatch.setattr(loader, "VOLUME_PEERS", {"nii.gz": {}, "npy": {}})


def test_last_line_is_json_and_an_absent_peer_is_no_success(small, tmp_path, capsys):
    assert main(["--json", "--repeats", "2", "--out", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr().out
    report = json.loads(printed.splitlines()[-1])
    assert report == json.loads((tmp_path / "out" / "loader.json").read_text())
    assert report["goal_met"] is False and report["goals"]["JPEG over HF"]["met"] is None
    assert "pip install no_such_package" in printed
    assert set(report["figures"]) == {"64 grey", "96 colour", "nii.gz", "npy"}
    for table in report["figures"].values():
        assert 0 < table[OURS]["ms_least"] <= table[OURS]["ms"] <= table[OURS]["ms_most"]
        assert table[OURS]["per_second"] == pytest.approx(1000 / table[OURS]["ms"])
    assert isinstance(report["goals"]["nii.gz of the limit"]["met"], bool)


def test_goals_add_up_the_sizes_and_take_the_fastest_other():
    def at(ms: float) -> Timing:
        return Timing(cpu=[ms / 1e3] * 3, elapsed=[ms / 1e3] * 3)

    picture = {OURS: at(10), "limit: x": at(9), "HF datasets a": at(40), "HF datasets b": at(31)}
    large = {OURS: at(30), "limit: x": at(24), "HF datasets a": at(100), "HF datasets b": at(95)}
    volume = {OURS: at(10), "limit: y": at(8)}
    found = judged({"s": picture, "l": large, "nii.gz": volume, "npy": volume}, ["s", "l"])
    assert found["JPEG of the limit"]["value"] == pytest.approx(33 / 40) and not found["JPEG of the limit"]["met"]
    assert found["JPEG over HF"]["value"] == pytest.approx(126 / 40) and found["JPEG over HF"]["met"]
    assert found["npy of the limit"]["value"] == pytest.approx(0.8)


def test_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--repeats", "0"])
    assert "at least 1" in capsys.readouterr().err
