"""Setting up, running and maintaining a key authority: the functions behind ``calyx authority``.

::

    DIR/                     0700
      authority.toml         settings, commented
      authority.pub          Ed25519 key that contributors pin
      identity.key keys/ contributors.json releases.jsonl      see `calyx.authority.local`
      witnessed.jsonl        heads of audits that were signed, see `calyx.authority.log.witness`
      tls/                   root.pem, authority.pem, authority-key.pem
      logs/ lock             what it does; held while it is served
      for-server/            root.pem, server.pem, server-key.pem: take this folder to the server
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from calyx.authority import certificates
from calyx.authority.enrolments import Enrolments
from calyx.authority.local import LocalAuthority
from calyx.authority.log.log import LogReport, verify
from calyx.authority.log.witness import witness as sign_head
from calyx.authority.service import AuthorityServer
from calyx.shared.config.schema import DEFAULT_CONTRIBUTORS, FEWEST_CONTRIBUTORS
from calyx.shared.errors import UsageError
from calyx.shared.host.address import bracketed
from calyx.shared.host.certificates import Credentials, expiry
from calyx.shared.host.log_file import logging_to
from calyx.shared.host.private_files import create_private, private_directory, replace_file
from calyx.shared.host.served_folder import ServedFolder
from calyx.shared.host.settings_file import read_settings
from calyx.shared.host.stop_signal import stop_signal
from calyx.shared.protocol.enrolment import EnrolmentRequest, read_request
from calyx.shared.protocol.signatures.witnessed import WitnessedHead

DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 9443
CERTIFICATE_DAYS = 365
_log = logging.getLogger("authority")


class AuthoritySettings(BaseModel):
    """``authority.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = DEFAULT_HOST
    port: int = Field(DEFAULT_PORT, ge=0, le=65535)
    min_contributors: int = Field(DEFAULT_CONTRIBUTORS, ge=FEWEST_CONTRIBUTORS)
    accept_untagged: bool = False


@dataclass(frozen=True)
class AuthorityFiles:
    """What `init` made.

    Attributes:
        directory: the authority's folder.
        for_server: folder to take to the aggregation server.
        verify_key: what contributors pin, 64 hex digits.
    """

    directory: Path
    for_server: Path
    verify_key: str


def init(
    directory: Path,
    *,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    port: int = DEFAULT_PORT,
    min_contributors: int | None = None,
    passphrase: bytes | None = None,
) -> AuthorityFiles:
    """Make an authority: folder, identity, certificates, settings.

    Args:
        directory: made 0700; an existing authority is not touched.
        hosts: names or addresses under which the server will reach it.
        port: written to the settings.
        min_contributors: smallest minimum of any run; None for the default.
        passphrase: encrypts the secret keys on disk.

    Raises:
        UsageError: there is an authority in this folder.
    """
    settings = directory / "authority.toml"
    if settings.exists():
        raise UsageError(
            f"{directory} already holds a key authority",
            hint=f"serve it with: calyx authority serve {directory}, or choose a new folder",
        )
    made = certificates.make(hosts, CERTIFICATE_DAYS)
    private_directory(directory)
    for folder, name, own in (
        ("tls", "authority", made.authority),
        ("for-server", "server", made.server),
    ):
        private_directory(directory / folder)
        # A set-up that was interrupted before its settings were written is repeated.
        for old in (directory / folder).iterdir():
            old.unlink()
        create_private(directory / folder / "root.pem", made.root)
        create_private(directory / folder / f"{name}.pem", own.certificate)
        create_private(directory / folder / f"{name}-key.pem", own.private_key)
    with LocalAuthority(directory, passphrase=passphrase) as authority:
        verify_key = authority.verify_key.hex()
    replace_file(directory / "for-server" / "authority.pub", f"{verify_key}\n".encode())
    floor = DEFAULT_CONTRIBUTORS if min_contributors is None else min_contributors
    replace_file(settings, _settings_text(port, floor).encode())
    return AuthorityFiles(directory, directory / "for-server", verify_key)


def serve(
    directory: Path,
    *,
    host: str | None = None,
    port: int | None = None,
    passphrase: bytes | None = None,
    on_ready: Callable[[int], None] | None = None,
) -> None:
    """Run an authority until SIGTERM or SIGINT; call it in the main thread.

    Args:
        directory: as made by `init`.
        host, port: instead of those in its settings.
        passphrase: as given to `init`.
        on_ready: gets the port once calls are accepted.

    Raises:
        UsageError: no authority in this folder, or settings that are not allowed.
        EncryptionError: wrong passphrase, or a folder open to others.
        LedgerError: the log is altered, shortened, or in use by another process.
    """
    settings = settings_of(directory)
    try:
        root, certificate, private_key = (
            (directory / "tls" / name).read_bytes()
            for name in ("root.pem", "authority.pem", "authority-key.pem")
        )
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be read",
            hint="restore it, or make a new authority with calyx authority init",
        ) from error
    with (
        LocalAuthority(
            directory,
            passphrase=passphrase,
            min_contributors=settings.min_contributors,
            accept_untagged=settings.accept_untagged,
        ) as authority,
        _served(directory).exclusive(),
        logging_to(directory / "logs" / "authority.log", "authority"),
        stop_signal() as stop,
    ):
        server = AuthorityServer(
            authority,
            host or settings.host,
            settings.port if port is None else port,
            root,
            Credentials(certificate, private_key),
        )
        try:
            server.start()
            _log.info("serving on port %d", server.port)
            if on_ready is not None:
                on_ready(server.port)
            stop.wait()
        finally:
            server.stop()
            _log.info("stopped")


def approve(directory: Path, request_text: str, *, fingerprint: str) -> EnrolmentRequest:
    """Enrol a contributor, even while the authority runs.

    Args:
        directory: as made by `init`.
        request_text: of a device's enrolment request.
        fingerprint: as the device's owner sees it; not taken from the request.

    Raises:
        EnrolmentError: the request is malformed, altered or too old, has another fingerprint, or
            was approved before; or its name looks like that of another device.
        ReleaseRefused: the name or a key is taken or was revoked.
    """
    settings_of(directory)
    request = read_request(request_text)
    request.check_age()
    request.check_fingerprint(fingerprint)
    Enrolments(directory).enrol(request)
    return request


def witness(directory: Path, request_text: str, *, passphrase: bytes | None) -> WitnessedHead:
    """Sign the head of a run or an audit, even while it runs (`calyx.authority.log.witness`).

    Raises:
        UsageError: there is no authority.
    """
    settings_of(directory)
    return sign_head(directory, request_text, passphrase=passphrase)


def revoke(directory: Path, name: str) -> None:
    """Take a contributor out for good, even while the authority runs.

    Raises:
        ProtocolError: no contributor of that name is enrolled.
    """
    settings_of(directory)
    Enrolments(directory).revoke(name)


def status_of(directory: Path) -> dict[str, Any]:
    """What an authority is doing, for people and scripts; its log is checked.

    Raises:
        UsageError: there is none.
        LedgerError: its log is altered.
    """
    settings = settings_of(directory)
    pid = _served(directory).running_pid()
    report = verify_log(directory)
    certificate = (directory / "tls" / "authority.pem").read_bytes()
    return {
        "running": pid is not None,
        "pid": pid,
        "address": f"{bracketed(settings.host)}:{settings.port}",
        "verify_key": (directory / "authority.pub").read_text(encoding="ascii").strip(),
        "min_contributors": settings.min_contributors,
        "certificate_valid_until": expiry(certificate).isoformat(timespec="seconds"),
        "contributors": [
            {
                "name": name,
                "revoked": enrolment.is_revoked,
                "fingerprint": enrolment.fingerprint,
                "approved_at": enrolment.approved_at,
            }
            for name, enrolment in sorted(Enrolments(directory).by_name().items())
        ],
        "log_entries": len(report.entries),
        "log_head": report.head,
    }


def stop_running(directory: Path, timeout_s: float = 20.0) -> bool:
    """Tell a served authority to stop and wait until it has; False if it was not served.

    Raises:
        RunError: it does not stop.
    """
    settings_of(directory)
    return _served(directory).stop_running(timeout_s)


def verify_log(directory: Path) -> LogReport:
    """Check the log of an authority, even while it runs.

    Raises:
        LedgerError: missing, altered or shortened.
    """
    return verify(directory / "releases.jsonl")


def settings_of(directory: Path) -> AuthoritySettings:
    """The settings of the authority in `directory`.

    Raises:
        UsageError: there is none, or a value is not allowed.
    """
    return read_settings(
        directory / "authority.toml",
        AuthoritySettings,
        f"there is no authority in {directory}",
        "make one with: calyx authority init DIR",
    )


def _served(directory: Path) -> ServedFolder:
    return ServedFolder(
        directory,
        taken=f"the authority in {directory} is already served",
        hint=f"see: calyx authority status {directory}",
        log=directory / "logs",
    )


def _settings_text(port: int, min_contributors: int) -> str:
    return f"""\
# Settings of this key authority; read when it starts.
host = "{DEFAULT_HOST}"            # listens here; another address only behind a firewall
port = {port}
min_contributors = {min_contributors}          # no run with a smaller minimum is opened
accept_untagged = false       # true: also sums that cannot be verified (CKKS); trusts the server
"""
