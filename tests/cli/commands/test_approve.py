"""Approving a device on the command line: nothing is approved without what its owner has said."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from calyx.authority import launch
from calyx.client.deployment.enrolment import enroll, keep_records
from calyx.server.deployment import setup
from calyx.shared.data.demo_share import share_of_digits
from tests.cli.conftest import Outcome

Calyx = Callable[..., Outcome]


@pytest.fixture
def parties(tmp_path: Path) -> dict[str, Path]:
    """Folders of both that approve."""
    launch.init(tmp_path / "authority")
    setup.init(tmp_path / "server")
    return {"authority": tmp_path / "authority", "server": tmp_path / "server"}


@pytest.fixture
def device(tmp_path: Path, parties: dict[str, Path]) -> tuple[str, str]:
    """A request's path and the fingerprint on the owner's screen."""
    folder = tmp_path / "device"
    made = enroll(
        folder,
        name="clinic-a",
        server="127.0.0.1:1",
        ca=parties["server"] / "for-devices" / "ca.pem",
        authority_key="",
        data=keep_records(folder, share_of_digits(0, 3, 0)),
    )
    return str(made.device.request_path), made.request.fingerprint


@pytest.mark.parametrize("party", ["authority", "server"])
def test_approving_needs_the_fingerprint_and_status_shows_it(
    party: str, calyx: Calyx, parties: dict[str, Path], device: tuple[str, str]
) -> None:
    (request, fingerprint), folder = device, str(parties[party])
    unsaid = calyx(party, "approve", folder, request)
    assert unsaid.code == 2 and "add --fingerprint" in unsaid.hint
    assert fingerprint not in unsaid.out + unsaid.err
    wrong = calyx(party, "approve", folder, request, "--fingerprint", "0000-" * 7 + "0000")
    assert wrong.code == 1 and "do not approve it" in wrong.hint
    assert fingerprint not in wrong.out + wrong.err
    done = calyx(party, "approve", folder, request, "--fingerprint", fingerprint, "--json")
    assert done.code == 0 and json.loads(done.out)["fingerprint"] == fingerprint
    assert f"clinic-a, fingerprint {fingerprint}" in done.err
    listed = calyx(party, "status", folder)
    assert "clinic-a" in listed.out and fingerprint in listed.out


def test_on_a_terminal_it_is_asked_for_and_a_nod_is_not_enough(
    parties: dict[str, Path], device: tuple[str, str]
) -> None:
    request, fingerprint = device
    for answer, code in (("y", 1), ("", 2), (fingerprint.replace("-", " ").upper(), 0)):
        ours, theirs = pty.openpty()
        words = ["-m", "calyx.cli.main", "authority", "approve", str(parties["authority"]), request]
        with subprocess.Popen(
            [sys.executable, *words], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            os.close(theirs)
            os.write(ours, f"{answer}\n".encode())
            said, _ = process.communicate(timeout=60)
        os.close(ours)
        assert process.returncode == code, said
        assert b"as the device's owner reads it out:" in said
