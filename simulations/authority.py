"""The key authority of a simulated sealed run: the real one, in this process.

Its folder and the clients' private keys lie in a private temporary folder that vanishes with the
process (`calyx.simulations.scratch`): a run folder holds no secrets. A resumed run gets a new
authority and new keys; what it decrypts is the same, because the clients repeat their values
exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from calyx.authority.local import LocalAuthority
from calyx.client.sealing.identity import ContributorIdentity
from calyx.shared.config import Config
from calyx.simulations.scratch import scratch_folder


@dataclass(frozen=True)
class SimulatedAuthority:
    """The authority and what each client needs of it.

    Attributes:
        authority: the authority.
        identities: path of each client's private keys, by partition number.
    """

    authority: LocalAuthority
    identities: dict[int, Path]

    def settings_of(self, client: int) -> dict[str, str | int | float | bool]:
        """The node settings that let a client seal."""
        return {
            "identity": str(self.identities[client]),
            "authority-key": self.authority.verify_key.hex(),
        }


@contextmanager
def simulated_authority(config: Config) -> Iterator[SimulatedAuthority]:
    """Set up an authority with every simulated client enrolled."""
    with scratch_folder("calyx-keys-") as folder:
        identities, requests = {}, []
        for number in range(config.federation.clients):
            path = folder / f"client-{number}.key"
            identities[number] = path
            requests.append(ContributorIdentity.create(path).request(str(number)))
        authority = LocalAuthority(
            folder / "authority",
            min_contributors=config.secure_aggregation.min_contributors,
            # CKKS sums cannot be tagged; a run with that scheme trusts the server to add.
            accept_untagged=config.secure_aggregation.scheme == "ckks",
        )
        with authority:
            authority.enrolments.approve(requests)
            yield SimulatedAuthority(authority, identities)
