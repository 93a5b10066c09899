"""A client's own keys: one signs receipts, one opens what the authority seals.

The file holds two private keys and only its owner can read it. It never leaves the device; the
public halves are the client's enrolment request.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from calyx.shared.errors import LedgerError, PolicyViolation
from calyx.shared.host.atomic_write import create_atomically
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys

_KEY_BYTES = 32


@dataclass(frozen=True)
class ContributorIdentity:
    """The private keys of one client.

    Attributes:
        signing: Ed25519, for receipts.
        sealing: X25519, for admissions.
    """

    signing: Ed25519PrivateKey = field(repr=False)
    sealing: X25519PrivateKey = field(repr=False)

    @classmethod
    def create(cls, path: Path) -> ContributorIdentity:
        """Make new keys and keep them in a new file, mode 0600.

        Raises:
            LedgerError: the file exists or cannot be written.
        """
        identity = cls(Ed25519PrivateKey.generate(), X25519PrivateKey.generate())
        content = identity.signing.private_bytes_raw() + identity.sealing.private_bytes_raw()
        try:
            create_atomically(path, content, 0o600)
        except OSError as error:
            raise LedgerError(
                f"{path} cannot be made: {error.strerror}",
                hint="check the folder and its permissions",
            ) from None
        return identity

    @classmethod
    def load(cls, path: Path) -> ContributorIdentity:
        """Read keys that only their owner can read.

        Raises:
            PolicyViolation: others may read the file, or it holds no keys.
        """
        try:
            mode = path.stat().st_mode & 0o077
            content = path.read_bytes()
        except OSError as error:
            raise PolicyViolation(
                f"this client's keys {path} cannot be read ({error.strerror})",
                hint="enrol it again",
            ) from None
        if mode:
            raise PolicyViolation(
                f"{path} can be read by other users",
                hint=f"run: chmod 600 {path}",
            )
        if len(content) != 2 * _KEY_BYTES:
            raise PolicyViolation(
                f"{path} holds no contributor keys",
                hint="enrol this client again",
            )
        return cls(
            Ed25519PrivateKey.from_private_bytes(content[:_KEY_BYTES]),
            X25519PrivateKey.from_private_bytes(content[_KEY_BYTES:]),
        )

    def request(self, name: str) -> ContributorKeys:
        """The enrolment request: public keys under this client's name."""
        return ContributorKeys.of(name, self.signing, self.sealing)
