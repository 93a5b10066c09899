"""The authority's signed word to one contributor of a run, with its tag keys in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.sealed.tags import TagKeys
from calyx.shared.protocol.signatures.signed import (
    canonical,
    derive,
    record_from_json,
    record_to_json,
    verifies,
)


@dataclass(frozen=True)
class Admission:
    """The authority's signed word to one contributor of a run.

    From it a contributor knows that the public key is the authority's and not the server's, how
    many contributors a released sum has at least, that all of them follow the same plan of the same
    configuration (docs/adr/0018), and how to tag its uploads.

    Attributes:
        run, contributor: whom it is for.
        parameters_digest: of the sealing parameters of the run.
        context_hash: SHA-256 of the public context, hex.
        min_contributors: no sum of fewer is released in this run.
        plan_digest: of the privacy plan that all contributors share; empty where each keeps one of
            its own (`calyx.shared.protocol.sealed.messages.common_plan_digest`).
        config_digest: of the run's configuration; one run has one.
        is_tagged: whether a sum is released only with valid tags; false for CKKS.
        sealed: the contributor's `TagKeys`, encrypted to its seal key.
        signature: Ed25519 by the authority over all of it.
    """

    run: str
    contributor: str
    parameters_digest: str
    context_hash: str
    min_contributors: int
    plan_digest: str
    config_digest: str
    is_tagged: bool
    sealed: bytes = b""
    signature: bytes = b""

    def issue(self, signing: Ed25519PrivateKey, seal_key: bytes, keys: TagKeys) -> Admission:
        """This admission with `keys` sealed to X25519 `seal_key`, signed by the authority."""
        ephemeral = X25519PrivateKey.generate()
        point = ephemeral.public_key().public_bytes_raw()
        secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(seal_key))
        plain = keys.weights_key + keys.pads_key
        # The key of the box is used once, so its nonce may be constant.
        box = _box(secret, point, seal_key).encrypt(bytes(12), plain, self._terms())
        sealed = replace(self, sealed=point + box)
        return replace(sealed, signature=signing.sign(sealed._signed_bytes()))

    def open(
        self, sealing: X25519PrivateKey, authority_key: bytes, public_context: bytes
    ) -> TagKeys:
        """Check signature and public key, and unseal the tag keys.

        The caller compares all terms with what it was told and what its owner's policy asks for
        (`calyx.client.sealing.terms`).

        Args:
            sealing: the contributor's private key.
            authority_key: the authority's Ed25519 key as pinned at enrolment, 32 bytes.
            public_context: as received from the server.

        Raises:
            ProtocolError: of another authority, public key or device, or altered.
        """
        if not verifies(authority_key, self.signature, self._signed_bytes()):
            raise ProtocolError(
                f"the admission to run {self.run!r} is not signed by the key authority that this "
                "device trusts",
                hint="do not take part, and ask the operator of the key authority",
            )
        if hashlib.sha256(public_context).hexdigest() != self.context_hash:
            raise ProtocolError(
                f"the public key received for run {self.run!r} is not the key authority's",
                hint="do not take part, and ask the operator of the key authority",
            )
        point, body = self.sealed[:32], self.sealed[32:]
        try:
            secret = sealing.exchange(X25519PublicKey.from_public_bytes(point))
            box = _box(secret, point, sealing.public_key().public_bytes_raw())
            plain = box.decrypt(bytes(12), body, self._terms())
        except (InvalidTag, ValueError) as error:
            raise ProtocolError(
                f"the admission of {self.contributor!r} to run {self.run!r} is sealed to another "
                "device's key",
                hint="enrol this device again",
            ) from error
        return TagKeys(plain[:32], plain[32:])

    def _terms(self) -> bytes:
        names = (self.run, self.contributor, self.parameters_digest, self.context_hash)
        one_for_all = (self.min_contributors, self.plan_digest, self.config_digest)
        return canonical("admission-2", *names, *one_for_all, int(self.is_tagged))

    def _signed_bytes(self) -> bytes:
        return self._terms() + canonical("sealed", self.sealed)

    def to_json(self) -> str:
        """As text, for the message that carries it."""
        return record_to_json(self)

    @classmethod
    def from_json(cls, text: str) -> Admission:
        """Read an admission; nothing is verified before `open`.

        Raises:
            ProtocolError: malformed, or of a version that bound neither plan nor configuration.
        """
        try:
            return record_from_json(cls, text)
        except ProtocolError:
            if '"parameters_digest"' in text and '"config_digest"' not in text:
                raise ProtocolError(
                    "the admission is of an older version, which binds neither plan nor "
                    "configuration",
                    hint="update the key authority and start a new run",
                ) from None
            raise


def _box(secret: bytes, point: bytes, seal_key: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(derive(secret, canonical("box", point, seal_key)))
