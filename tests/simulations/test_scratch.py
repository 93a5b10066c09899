"""Keys of simulations do not stay behind."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from calyx.simulations.scratch import scratch_folder


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_folder_goes_with_its_block_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_folder("keys-") as folder:
        (folder / "client-0.key").write_bytes(b"secret")
        assert folder.stat().st_mode & 0o077 == 0
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_with_the_next_and_what_is_in_use_stays(
    tmp_path: Path,
) -> None:
    script = (
        "import os, tempfile\nfrom calyx.simulations.scratch import scratch_folder\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "with scratch_folder('keys-') as folder:\n"
        "    (folder / 'client-0.key').write_bytes(b'secret')\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    (left,) = tmp_path.iterdir()
    assert (left / "client-0.key").exists()
    with scratch_folder("keys-") as first:
        assert not left.exists()
        with scratch_folder("keys-") as second:
            assert first.is_dir() and second.is_dir()


def test_nothing_of_others_is_touched(tmp_path: Path) -> None:
    aim = tmp_path / "aim"
    aim.mkdir()
    (aim / "kept").touch()
    (tmp_path / "keys-link").symlink_to(aim)
    (tmp_path / "keys-file").touch()
    (tmp_path / "other-keys").mkdir()
    with scratch_folder("keys-"):
        pass
    assert (aim / "kept").exists()
    assert {p.name for p in tmp_path.iterdir()} == {"aim", "keys-link", "keys-file", "other-keys"}
