"""Setting an authority up, and real processes that are stopped and killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from authority import launch
from authority.events import Enrolled, Granted, Recovered, Repeated
from authority.log import LogReport
from shared.errors import (
    ConfigError,
    EncryptionError,
    EnrolmentError,
    ProtocolError,
    ReleaseRefused,
    RunError,
    UsageError,
)
from shared.protocol.authority_client import RemoteAuthority
from shared.protocol.contributor_keys import ContributorKeys

# Runs an authority that kills itself, as kill -9 would, at one point of a release.
CHILD = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from authority import launch, local
    from authority.events import Granted
    from authority.keys import KeyPair

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
        launch.approve(folder, device.keys.to_json())
    return files


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
    with pytest.raises(UsageError, match="there is an authority in"):
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
        lambda: launch.approve(tmp_path, "{}"),
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


def test_a_stolen_enrolment_request_is_of_no_use(made: launch.AuthorityFiles, devices: Any) -> None:
    request = devices[0].keys
    with pytest.raises(EnrolmentError, match="enrolled already"):
        launch.approve(made.directory, request.to_json())
    stolen = request.to_json().replace("device-0", "device-9")
    with pytest.raises(ProtocolError, match="not signed by its own key"):
        launch.approve(made.directory, stolen)
    stranger = Ed25519PrivateKey.generate()
    copied = ContributorKeys.of("device-9", stranger, devices[0].sealing)
    with pytest.raises(ReleaseRefused, match="one device, one name"):
        launch.approve(made.directory, copied.to_json())
    taken = ContributorKeys.of("device-0", stranger, X25519PrivateKey.generate())
    with pytest.raises(ReleaseRefused, match="enrolled with other keys"):
        launch.approve(made.directory, taken.to_json())


def test_revoking_needs_somebody_to_revoke(made: launch.AuthorityFiles) -> None:
    launch.revoke(made.directory, "device-0")
    with pytest.raises(ProtocolError, match="nobody is enrolled as 'nobody'"):
        launch.revoke(made.directory, "nobody")
