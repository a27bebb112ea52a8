"""The doctor: real round trips, and honest words about what is absent or broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medvlm.scripts import doctor


def test_report_covers_the_core_and_every_fault_has_a_mend() -> None:
    checks = {check.name: check for check in doctor.report()}
    assert {"Python", "torch", "transformers", "torchvision", "CUDA", "deepspeed", "flash_attn"} <= set(checks)
    assert checks["pylibjpeg-openjpeg"].found.endswith("tried and right")
    assert all(check.mend for check in checks.values() if check.state != "ok")


def test_a_package_that_does_not_import_is_broken_not_ok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn_package.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(str(tmp_path))
    check = doctor.check_import("torn_package", core=False, enables="x", mend="pip install torn")
    assert check.state == "broken" and "operator torchvision::nms does not exist" in check.found
    absent = doctor.check_import("no_such_package_here", core=True, enables="x", mend="pip install it")
    assert (absent.state, absent.mend) == ("absent", "pip install it")


def test_a_broken_torchvision_is_a_core_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text("raise RuntimeError('no nms')")
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    check = doctor.check_torchvision()
    assert check.core and check.state == "broken" and check.mend == "pip uninstall -y torchvision"


def test_a_codec_that_gives_other_pixels_is_broken() -> None:
    def lossy() -> None:
        raise ValueError("decoded pixels differ")

    assert doctor._tried("numpy", "x", lossy).state == "broken"


def test_exit_code_tells_core_faults(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lacking = doctor.Check(name="flash_attn", state="absent", found="no", core=False, enables="x", mend="pip a[b]")
    monkeypatch.setattr(doctor, "report", lambda: [lacking])
    assert doctor.main([]) == 0 and "to mend flash_attn: pip a[b]" in capsys.readouterr().out
    broken = doctor.Check(name="torch", state="broken", found="no", core=True, enables="x", mend="pip install torch")
    monkeypatch.setattr(doctor, "report", lambda: [lacking, broken])
    assert doctor.main([]) == 1 and "core pieces at fault: torch" in capsys.readouterr().out
