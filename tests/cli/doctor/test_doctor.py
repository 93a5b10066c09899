from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calyx.cli.doctor.machine import disk_check, library_checks
from calyx.cli.doctor.packages import ownership_checks, version_checks

Calyx = Callable[..., Any]


def test_this_machine_has_no_faults_and_encryption_works(calyx: Calyx) -> None:
    outcome = calyx("doctor", "--json")
    found = json.loads(outcome.out.splitlines()[-1])
    checks = {check["name"]: check for check in found["checks"]}
    assert [check for check in found["checks"] if check["status"] == "fault"] == []
    assert (outcome.code, found["ok"]) == (0, True)
    for name in ("Python", "torch", "flwr", "opacus", "tenseal", "processor cores", "GPU", "disk"):
        assert name in checks
    assert "an encrypted sum is right" in checks["try TenSEAL"]["found"]
    assert checks["own package"]["status"] == "ok"
    assert len(outcome.out.splitlines()) == 1
    assert "no faults" in outcome.err


def test_another_package_of_the_same_name_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "calyx").mkdir()
    (tmp_path / "calyx" / "__init__.py").touch()
    assert [check.status for check in ownership_checks()] == ["ok"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "calyx")
    monkeypatch.syspath_prepend(str(tmp_path))
    fault, note = ownership_checks()
    assert (fault.name, fault.status) == ("package calyx", "fault")
    assert str(tmp_path) in fault.found
    assert fault.fix
    assert (note.name, note.status) == ("folder calyx", "note")


def test_versions_out_of_range_are_faults_with_the_command_that_mends_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(check.status != "fault" for check in version_checks())
    metadata = tmp_path / "tenseal-0.2.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tenseal\nVersion: 0.2.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (fault,) = [check for check in version_checks() if check.status == "fault"]
    assert fault.name == "tenseal"
    assert "0.2.0, but" in fault.found
    assert fault.fix.startswith("pip install 'tenseal")


def test_a_library_that_ends_its_process_is_a_fault_and_the_others_are_still_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in (("torch", "raise ImportError('no such symbol')"), ("opacus", "")):
        (tmp_path / f"{name}.py").write_text(code)
    (tmp_path / "tenseal.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGILL)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}".rstrip(":"))
    checks = {check.name: check for check in library_checks()}
    assert checks["try torch"].found == "ImportError: no such symbol"
    assert checks["try TenSEAL"].status == "fault"
    assert "SIGILL" in checks["try TenSEAL"].found
    assert checks["try TenSEAL"].fix.startswith("pip install")


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert disk_check(tmp_path).found.endswith(f"GB free in {tmp_path}")
    assert disk_check(Path("/proc")).status != "ok"
