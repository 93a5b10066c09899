"""Setting up an authority, and real processes that are stopped and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from calyx.authority import launch
from calyx.authority.log.events import Enrolled, Granted, Recovered, Repeated
from calyx.authority.log.log import LogReport
from calyx.shared.errors import (
    ConfigError,
    EncryptionError,
    EnrolmentError,
    ProtocolError,
    ReleaseRefused,
    RunError,
    UsageError,
)
from calyx.shared.protocol import enrolment
from calyx.shared.protocol.authority.client import RemoteAuthority
from calyx.shared.protocol.enrolment import read_request

# Runs an authority that kills itself, as kill -9 would, at one point of a release.
CHILD = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from calyx.authority import launch, local
    from calyx.authority.log.events import Granted
    from calyx.authority.keys.key_pair import KeyPair

    folder, port, point = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    def die(*arguments, **more):
        os.kill(os.getpid(), signal.SIGKILL)

    record, write, unpack = local.LocalAuthority._record, os.write, local.unpack_sum
    if point == "before the grant is written":
        def watched(self, *new):
            return die() if isinstance(new[0], Granted) else record(self, *new)
        local.LocalAuthority._record = watched
    elif point == "while the grant is written":
        def torn(file, content):
            if b'"event":"granted"' in bytes(content):
                write(file, bytes(content)[: len(content) // 2])
                die()
            return write(file, content)
        os.write = torn
    elif point == "after the grant, before decrypting":
        KeyPair.decrypt = die
    elif point == "after decrypting, before the answer":
        local.unpack_sum = lambda *a, **k: (unpack(*a, **k), die())

    def ready(port):
        print(port, flush=True)

    launch.serve(folder, port=port, on_ready=ready)
    print("stopped", flush=True)
    """
)


class Served:
    """An authority in a process of its own."""

    def __init__(self, folder: Path, port: int = 0, point: str = "never") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(folder), str(port), point],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            with self.process:
                raise AssertionError(self.process.communicate(timeout=20)[1])
        self.port = int(line)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, errors = self.process.communicate(timeout=20)
        return self.process.returncode, out, errors


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    running: list[Served] = []

    def start(*arguments: Any) -> Served:
        running.append(Served(*arguments))
        return running[-1]

    yield start
    for served in running:
        if served.process.poll() is None:
            served.process.kill()
        with served.process:
            served.process.wait(timeout=20)


@pytest.fixture
def made(folder: Path, devices: Any) -> launch.AuthorityFiles:
    files = launch.init(folder)
    for device in devices:
        approve(folder, device.request())
    return files


def approve(folder: Path, request: str) -> None:
    """Approve it with the fingerprint that its owner sees."""
    launch.approve(folder, request, fingerprint=read_request(request).fingerprint)


def connect(files: launch.AuthorityFiles, port: int, timeout_s: float = 30.0) -> RemoteAuthority:
    root, own, key = (
        (files.for_server / name).read_bytes()
        for name in ("root.pem", "server.pem", "server-key.pem")
    )
    return RemoteAuthority(f"127.0.0.1:{port}", root, own, key, timeout_s)


def kinds(report: LogReport) -> list[type]:
    return [type(entry.event) for entry in report.entries if not isinstance(entry.event, Enrolled)]


POINTS = {
    "before the grant is written": [Granted],
    "while the grant is written": [Recovered, Granted],
    "after the grant, before decrypting": [Granted, Repeated],
    "after decrypting, before the answer": [Granted, Repeated],
}


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_point_of_a_release_and_started_again_it_releases_one_sum(
    point: str,
    made: launch.AuthorityFiles,
    serve: Serve,
    open_run: Callable[..., Any],
    total_of: Callable[[Sequence[Any]], Any],
) -> None:
    """The waiting server gets its answer; no other sum of that round ever comes out."""
    served = serve(made.directory, 0, point)
    with connect(made, served.port) as remote, ThreadPoolExecutor(1) as pool:
        run = open_run(remote, bytes.fromhex(made.verify_key))
        uploads = run.uploads(1)
        request, chunks = run.request(1, uploads)
        waiting = pool.submit(remote.release, request, chunks)
        assert served.process.wait(timeout=20) == -signal.SIGKILL
        serve(made.directory, served.port)
        assert (waiting.result(timeout=30).values == total_of(uploads)).all()
        for others in (run.uploads(1, count=4), run.uploads(1)):
            with pytest.raises(ReleaseRefused, match=r"^already-released"):
                remote.release(*run.request(1, others))
        following = run.uploads(2)
        released = remote.release(*run.request(2, following))
        assert (released.values == total_of(following)).all()
    report = launch.verify_log(made.directory)
    assert kinds(report)[1 : 1 + len(POINTS[point])] == POINTS[point]
    granted = [e.event for e in report.entries if isinstance(e.event, Granted)]
    assert [event.round for event in granted] == [1, 2]
    assert granted[0].sum_hash == request.sum_hash


def test_it_stops_cleanly_and_prints_nothing(made: launch.AuthorityFiles, serve: Serve) -> None:
    served = serve(made.directory)
    with connect(made, served.port) as remote:
        assert remote.health()
        with pytest.raises(AssertionError, match="in use by another authority process"):
            serve(made.directory)
        code, out, errors = served.end()
        assert (code, out, errors) == (0, "stopped\n", "")
        assert not remote.health()
    message = r"did not answer within 0\.5 s"
    with connect(made, served.port, 0.5) as remote, pytest.raises(RunError, match=message):
        remote.close_run("run-1")


def test_init_makes_everything_and_opens_nothing_to_others(folder: Path) -> None:
    files = launch.init(folder, hosts=["authority.example", "10.0.0.7"], min_contributors=5)
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert sorted(path.name for path in files.for_server.iterdir()) == [
        "authority.pub",
        "root.pem",
        "server-key.pem",
        "server.pem",
    ]
    settings = launch.settings_of(folder)
    assert (settings.host, settings.port, settings.min_contributors) == ("127.0.0.1", 9443, 5)
    assert not settings.accept_untagged
    assert (folder / "authority.pub").read_text().strip() == files.verify_key
    certificate = x509.load_pem_x509_certificate((folder / "tls" / "authority.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["authority.example", "10.0.0.7"]


def test_init_leaves_an_authority_that_is_there_alone(made: launch.AuthorityFiles) -> None:
    before = {p: p.read_bytes() for p in made.directory.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match="already holds a key authority"):
        launch.init(made.directory)
    assert {p: p.read_bytes() for p in made.directory.rglob("*") if p.is_file()} == before


def test_init_that_was_broken_off_is_done_again(folder: Path) -> None:
    launch.init(folder)
    (folder / "authority.toml").unlink()
    launch.init(folder)
    assert launch.settings_of(folder).min_contributors == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("min_contributors = 1", "min_contributors = 1"),
        ("port = 70000", "port = 70000"),
        ("ports = 1", "ports"),
        ("port =", "cannot be read"),
    ],
)
def test_settings_that_are_not_allowed_are_named(
    made: launch.AuthorityFiles, text: str, says: str
) -> None:
    (made.directory / "authority.toml").write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        launch.serve(made.directory)
    assert "\n" not in str(caught.value)


def test_a_folder_without_an_authority_is_a_usage_error(tmp_path: Path) -> None:
    for call in (
        lambda: launch.serve(tmp_path),
        lambda: launch.approve(tmp_path, "{}", fingerprint=""),
        lambda: launch.revoke(tmp_path, "device"),
    ):
        with pytest.raises(UsageError, match="make one with"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_passphrase_stops_it_before_it_listens(folder: Path) -> None:
    launch.init(folder, passphrase=b"right")
    for wrong in (None, b"wrong"):
        with pytest.raises(EncryptionError, match="passphrase"):
            launch.serve(folder, port=0, passphrase=wrong)


def test_a_device_cannot_be_enrolled_twice_or_in_anothers_place(
    made: launch.AuthorityFiles, devices: Any
) -> None:
    first = devices[0]
    with pytest.raises(EnrolmentError, match="already enrolled"):
        approve(made.directory, first.request())
    with pytest.raises(EnrolmentError, match="that of 'device-0'"):
        approve(made.directory, replace(devices[1], name="device-9", node=first.node).request())
    stranger = type(first)("device-9")
    with pytest.raises(ReleaseRefused, match="use one name for each device"):
        approve(made.directory, replace(stranger, sealing=first.sealing).request())
    with pytest.raises(ReleaseRefused, match="enrolled with other keys"):
        approve(made.directory, replace(stranger, name="device-0").request())
    with pytest.raises(EnrolmentError, match="looks like 'device-0'"):
        approve(made.directory, replace(stranger, name="device-O").request())


def test_a_forged_request_needs_the_fingerprint_that_its_owner_cannot_have_said(
    folder: Path, devices: Any
) -> None:
    """The server's operator makes one under the device's name; it is as valid as the real one."""
    launch.init(folder)
    real = devices[0].request()
    forged = type(devices[0])(devices[0].name).request()
    said = read_request(real).fingerprint
    with pytest.raises(EnrolmentError, match="not the request of 'device-0' with the"):
        launch.approve(folder, forged, fingerprint=said)
    assert launch.status_of(folder)["contributors"] == []
    launch.approve(folder, real, fingerprint=said)
    (listed,) = launch.status_of(folder)["contributors"]
    assert (listed["name"], listed["fingerprint"]) == ("device-0", said)


def test_a_request_is_used_once_and_not_when_it_is_old(
    folder: Path, devices: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch.init(folder)
    request = devices[0].request()
    approve(folder, request)
    for _ in range(2):
        with pytest.raises(EnrolmentError, match="was already used"):
            approve(folder, request)
        launch.revoke(folder, "device-0")
    with monkeypatch.context() as patch:
        patch.setattr(enrolment, "VALID_DAYS", -1)
        with pytest.raises(EnrolmentError, match="make a new one on that device"):
            approve(folder, devices[1].request())
    with pytest.raises(EnrolmentError, match="not a usable enrolment request"):
        launch.approve(folder, devices[1].keys.to_json(), fingerprint="0" * 32)


def test_enrolments_of_an_older_version_are_read_and_completed(folder: Path, devices: Any) -> None:
    launch.init(folder)
    lines = {d.name: {"request": d.keys.to_json(), "revoked": False} for d in devices[:2]}
    lines["device-1"]["revoked"] = True
    (folder / "contributors.json").write_text(json.dumps(lines))
    listed = launch.status_of(folder)["contributors"]
    assert [member["fingerprint"] for member in listed] == ["", ""]
    request = devices[0].request()
    approve(folder, request)
    listed = launch.status_of(folder)["contributors"]
    assert listed[0]["fingerprint"] == read_request(request).fingerprint
    with pytest.raises(ReleaseRefused, match="was revoked"):
        approve(folder, devices[1].request())


def test_revoking_needs_somebody_to_revoke(made: launch.AuthorityFiles) -> None:
    launch.revoke(made.directory, "device-0")
    with pytest.raises(ProtocolError, match="no device is enrolled as 'stranger'"):
        launch.revoke(made.directory, "stranger")
