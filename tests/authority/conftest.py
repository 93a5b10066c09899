"""A key authority, its contributors and what an honest or dishonest server sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from calyx.authority import certificates
from calyx.authority.certificates import CertificateSet
from calyx.authority.local import LocalAuthority
from calyx.authority.service import AuthorityServer
from calyx.shared.encryption import (
    Aggregator,
    PublicSealer,
    SealedSum,
    SealedVector,
    SealingParameters,
    derive_parameters,
    pack,
)
from calyx.shared.protocol.authority.client import RemoteAuthority
from calyx.shared.protocol.authority.interface import (
    Authority,
    Head,
    Opening,
    ReleaseRequest,
)
from calyx.shared.protocol.enrolment import make_request
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys
from calyx.shared.protocol.sealed.receipts import Receipt, fresh_nonce
from calyx.shared.protocol.sealed.tags import TagKeys
from tests.authority.releases import CONFIG_DIGEST, PLAN_DIGEST
from tests.authority.served_authority import HOST, ServedAuthority

# Two fields a slot and three ciphertexts, with a plain modulus of 39 bits.
PARAMETERS = derive_parameters(scheme="bfv", contributors=32, value_bound=8191, length=20_000)


@dataclass(frozen=True)
class Device:
    """A contributor with its private keys."""

    name: str
    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    sealing: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    node: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP384R1())
    )

    @property
    def keys(self) -> ContributorKeys:
        return ContributorKeys.of(self.name, self.signing, self.sealing)

    def request(self) -> str:
        """A new enrolment request."""
        return make_request(self.name, self.node, self.signing, self.keys)


@dataclass(frozen=True)
class Upload:
    """What one contributor sends in one round, and what is in it."""

    values: NDArray[np.int64]
    sealed: SealedVector
    receipt: Receipt


@dataclass
class Run:
    """An open run as clients and server see it."""

    name: str
    opening: Opening
    devices: Sequence[Device]
    authority_key: bytes
    parameters: SealingParameters
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def tag_keys(self, device: Device) -> TagKeys:
        admission = self.opening.admissions[device.name]
        return admission.open(device.sealing, self.authority_key, self.opening.public_context)

    def upload(self, round: int, device: Device) -> Upload:
        p = self.parameters
        values = self.random.integers(-p.value_bound, p.value_bound + 1, p.length)
        nonce, slots = fresh_nonce(), pack(values, p)
        if p.scheme == "bfv":
            slots = self.tag_keys(device).tagged(slots, p.plain_modulus, round, nonce)
        sealed = PublicSealer(p, self.opening.public_context).seal_slots(slots)
        receipt = Receipt(self.name, round, device.name, p.digest, sealed.digest, nonce)
        return Upload(values, sealed, receipt.signed(device.signing))

    def uploads(self, round: int, count: int = 3) -> list[Upload]:
        return [self.upload(round, device) for device in self.devices[:count]]

    def add(self, uploads: Sequence[Upload]) -> SealedSum:
        adder = Aggregator(self.parameters, self.opening.public_context)
        for upload in uploads:
            adder.add(upload.sealed)
        return adder.finish()

    def request(
        self, round: int, uploads: Sequence[Upload], total: SealedSum | None = None
    ) -> tuple[ReleaseRequest, tuple[bytes, ...]]:
        total = total or self.add(uploads)
        receipts = [upload.receipt for upload in uploads]
        return ReleaseRequest.of(self.name, round, receipts, total), total.chunks


@pytest.fixture(scope="session")
def devices() -> list[Device]:
    return [Device(f"device-{i}") for i in range(6)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "authority"


@pytest.fixture
def authority(folder: Path, devices: list[Device]) -> Iterator[LocalAuthority]:
    with LocalAuthority(folder) as made:
        made.enrolments.approve([device.keys for device in devices])
        yield made


OpenRun = Callable[..., Run]


@pytest.fixture
def open_run(devices: list[Device]) -> OpenRun:
    """Open a run with the first five devices; the sixth is enrolled but stays outside."""

    def open_it(
        authority: Authority,
        authority_key: bytes,
        name: str = "run-1",
        parameters: SealingParameters = PARAMETERS,
        min_contributors: int = 3,
        known_head: Head | None = None,
    ) -> Run:
        members = devices[:5]
        names = [device.name for device in members]
        digests = (PLAN_DIGEST, CONFIG_DIGEST)
        opening = authority.open_run(
            name, parameters, min_contributors, names, *digests, known_head
        )
        return Run(name, opening, members, authority_key, parameters)

    return open_it


@pytest.fixture
def run(authority: LocalAuthority, open_run: OpenRun) -> Run:
    return open_run(authority, authority.verify_key)


@pytest.fixture
def total_of() -> Callable[[Sequence[Upload]], NDArray[np.int64]]:
    """The sum that should be released, in plain integers."""

    def add(uploads: Sequence[Upload]) -> NDArray[np.int64]:
        return np.sum([upload.values for upload in uploads], axis=0)

    return add


@pytest.fixture(scope="module")
def tls() -> CertificateSet:
    return certificates.make(["localhost", HOST], days=1)


@pytest.fixture
def served(authority: LocalAuthority, tls: CertificateSet) -> Iterator[ServedAuthority]:
    server = AuthorityServer(authority, HOST, 0, tls.root, tls.authority)
    server.start()
    yield ServedAuthority(authority, server, tls)
    server.stop()


@pytest.fixture
def remote(served: ServedAuthority) -> Iterator[RemoteAuthority]:
    with served.connect() as client:
        yield client


@pytest.fixture
def far_run(remote: RemoteAuthority, served: ServedAuthority, open_run: Callable[..., Any]) -> Any:
    return open_run(remote, served.authority.verify_key)
