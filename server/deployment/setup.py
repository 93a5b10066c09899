"""Setting a server up: the functions behind ``calyx server init``, ``renew`` and ``authority``."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import tomli_w
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from calyx.server.deployment.folder import DEFAULT_PORT, LOOPBACK, ServerFolder, ServerSettings
from calyx.server.deployment.nginx import nginx_config
from calyx.shared.errors import UsageError
from calyx.shared.host.address import without_brackets
from calyx.shared.host.certificates import Credentials, expiry, fingerprint, issue, make_root
from calyx.shared.host.private_files import create_private, private_directory, replace_file
from calyx.shared.host.settings_file import made_settings
from calyx.shared.protocol.signatures.instruction import INSTRUCTION_KEY_FILE

CA_DAYS, CERTIFICATE_DAYS = 3650, 365
PUBLIC_PORT = 9441
_LOCAL = ("localhost", LOOPBACK, "::1")
_AUTHORITY_FILES = ("root.pem", "server.pem", "server-key.pem")


@dataclass(frozen=True)
class ServerFiles:
    """What `init` made.

    Attributes:
        directory: the server's folder.
        for_devices: folder with what a device's owner needs.
        ca_fingerprint: SHA-256 of the CA, hex; for owners to compare.
        instruction_key: public half of the key that messages to devices are signed with, hex.
    """

    directory: Path
    for_devices: Path
    ca_fingerprint: str
    instruction_key: str


def init(
    directory: Path,
    *,
    hosts: Sequence[str] = (),
    listen: str = LOOPBACK,
    port: int = DEFAULT_PORT,
    public_port: int = PUBLIC_PORT,
) -> ServerFiles:
    """Make a server: CA, certificate, secrets, settings, proxy configuration.

    Args:
        directory: made 0700; an existing server is not touched.
        hosts: names and addresses under which devices reach it; this machine's own are added.
        listen: address to listen on.
        port: to listen on.
        public_port: of the reverse proxy.

    Raises:
        UsageError: there is a server in this folder.
    """
    folder = ServerFolder(directory)
    if folder.settings_path.exists():
        raise UsageError(
            f"{directory} already holds a server",
            hint=f"start it with: calyx server up {directory}",
        )
    for private in (
        folder.directory,
        folder.ca_dir,
        folder.tls_dir,
        folder.for_devices,
        folder.flower_home,
        folder.state_dir,
        folder.log_dir,
        folder.runs_dir,
    ):
        private_directory(private)
    # A set-up that was interrupted before its settings were written is repeated.
    secret_paths = (folder.ca_dir / "ca-key.pem", folder.secret_path, folder.instruction_key_path)
    for old in (folder.ca_path, *secret_paths):
        old.unlink(missing_ok=True)
    root = make_root("Calyx server CA", CA_DAYS)
    create_private(folder.ca_path, root.certificate)
    create_private(folder.ca_dir / "ca-key.pem", root.private_key)
    create_private(folder.secret_path, secrets.token_bytes(32))
    instruction_key = Ed25519PrivateKey.generate()
    create_private(folder.instruction_key_path, instruction_key.private_bytes_raw())
    public = instruction_key.public_key().public_bytes_raw().hex()
    replace_file(folder.for_devices / "ca.pem", root.certificate)
    replace_file(folder.for_devices / INSTRUCTION_KEY_FILE, f"{public}\n".encode())
    _issue(folder, root, hosts)
    settings = ServerSettings(listen=without_brackets(listen), port=port)
    replace_file(folder.settings_path, tomli_w.dumps(settings.model_dump()).encode())
    replace_file(folder.proxy_path, nginx_config(folder, public_port).encode())
    pinned = fingerprint(root.certificate)
    return ServerFiles(folder.directory, folder.for_devices, pinned, public)


def renew(directory: Path, hosts: Sequence[str] = ()) -> datetime:
    """Issue a new server certificate of the same CA: devices need nothing new.

    Args:
        directory: of a server.
        hosts: further names or addresses; those of the present certificate are kept.

    Returns:
        Until when it is valid.

    Raises:
        UsageError: there is no server.
    """
    folder = ServerFolder(directory)
    folder.settings()
    root = Credentials(folder.ca_path.read_bytes(), (folder.ca_dir / "ca-key.pem").read_bytes())
    _issue(folder, root, [*_hosts_of(folder), *hosts])
    return expiry(folder.certificate_path.read_bytes())


def use_authority(directory: Path, address: str, files: Path) -> None:
    """Name the key authority of this server.

    Args:
        directory: of a server.
        address: host:port of the authority.
        files: its folder for-server, brought from its machine.

    Raises:
        UsageError: there is no server, or `files` is not such a folder.
        ConfigError: it is no address.
    """
    folder = ServerFolder(directory)
    settings = folder.settings()
    try:
        contents = {name: (files / name).read_bytes() for name in _AUTHORITY_FILES}
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be read",
            hint="give the folder for-server of the key authority",
        ) from None
    updated = made_settings(ServerSettings, {**settings.model_dump(), "authority": address})
    private_directory(folder.authority_dir)
    for name, content in contents.items():
        replace_file(folder.authority_dir / name, content)
    replace_file(folder.settings_path, tomli_w.dumps(updated.model_dump()).encode())


def _issue(folder: ServerFolder, root: Credentials, hosts: Sequence[str]) -> None:
    names = list(dict.fromkeys([*hosts, *_LOCAL]))
    made = issue(root, "Calyx server", "server", names, CERTIFICATE_DAYS)
    replace_file(folder.private_key_path, made.private_key)
    replace_file(folder.certificate_path, made.certificate)


def _hosts_of(folder: ServerFolder) -> list[str]:
    certificate = x509.load_pem_x509_certificate(folder.certificate_path.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]
