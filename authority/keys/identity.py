"""The authority's own key, which signs admissions and which contributors pin."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from calyx.authority.keys.secret_file import read_secret, write_secret
from calyx.shared.errors import LedgerError
from calyx.shared.host.private_files import replace_file


def read_identity(
    directory: Path, passphrase: bytes | None, *, has_runs: bool
) -> Ed25519PrivateKey:
    """The key in an authority's folder; a new authority's is made there, with its public half.

    Args:
        directory: the authority's folder.
        passphrase: encrypts it; None for none.
        has_runs: whether runs were opened here, so that the authority is not new.

    Raises:
        EncryptionError: it cannot be read, or the passphrase is wrong.
        LedgerError: it is gone, and others trust it.
    """
    path = directory / "identity.key"
    if path.exists():
        return Ed25519PrivateKey.from_private_bytes(read_secret(path, passphrase))
    if has_runs:
        raise LedgerError(
            f"{path} is gone, and contributors trust no other key",
            hint=(
                "restore it from a copy, or start over in a new folder and enrol all contributors "
                "again"
            ),
        )
    identity = Ed25519PrivateKey.generate()
    write_secret(path, identity.private_bytes_raw(), passphrase)
    public = identity.public_key().public_bytes_raw().hex()
    replace_file(directory / "authority.pub", f"{public}\n".encode())
    return identity
