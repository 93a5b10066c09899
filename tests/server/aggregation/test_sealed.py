"""A reply for which the key authority would refuse a whole sum is refused on arrival."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from calyx.authority.local import LocalAuthority
from calyx.client.sealing.identity import ContributorIdentity
from calyx.server.aggregation.gradient_step import ServerGradientStep
from calyx.server.aggregation.sealed import SealedCollection, SealedRun, SealedStep
from calyx.server.aggregation.strategy import Strategy
from calyx.server.roster import Member, RoundRecord
from calyx.server.state.witness import Witness
from calyx.shared.config.load import build, digest, from_settings
from calyx.shared.encryption import PublicSealer, SealedVector, pack
from calyx.shared.errors import ProtocolError
from calyx.shared.privacy.plan import make_plan
from calyx.shared.protocol.sealed.messages import (
    common_plan_digest,
    sealed_reply,
    sealing_parameters,
    sum_shape,
)
from calyx.shared.protocol.sealed.receipts import Receipt, fresh_nonce

CONFIG = build(
    from_settings(
        [
            "federation.clients=3",
            "privacy.noise=distributed",
            "privacy.sampling=full",
            "secure_aggregation.scheme=bfv",
        ]
    )
)
NAMES = ("first", "second", "third")
SIZE = 50


class Side:
    """Three clients with keys of their own, and the server's collection of their first round."""

    def __init__(self, folder: Path, authority: LocalAuthority) -> None:
        self.identities = {n: ContributorIdentity.create(folder / f"{n}.key") for n in NAMES}
        authority.enrolments.approve([i.request(n) for n, i in self.identities.items()])
        plan = make_plan(CONFIG, 60, sum_shape(CONFIG, SIZE))
        self.parameters = sealing_parameters(CONFIG, plan, SIZE)
        opening = authority.open_run(
            "run", self.parameters, 3, NAMES, common_plan_digest(plan), digest(CONFIG)
        )
        self.sealer = PublicSealer(self.parameters, opening.public_context)
        witness = Witness(None)
        run = SealedRun("run", CONFIG, plan, self.parameters, ["w"], authority, opening, witness)
        step = SealedStep(run, Strategy(CONFIG.federation), ServerGradientStep(CONFIG.federation))
        self.collection = SealedCollection(
            RoundRecord(1, list(NAMES)), {}, step, lambda pending: None
        )

    def sealed(self) -> SealedVector:
        return self.sealer.seal_slots(pack(np.ones(SIZE, np.int64), self.parameters))

    def receipt(self, client: str, sealed: SealedVector, **changes: object) -> Receipt:
        plain = Receipt("run", 1, client, self.parameters.digest, sealed.digest, fresh_nonce())
        changed = replace(plain, **changes)  # type: ignore[arg-type]
        return changed.signed(self.identities[client].signing)

    def send(self, client: str, sealed: SealedVector, receipt: Receipt) -> None:
        ask = Message(RecordDict(), dst_node_id=2, message_type="train")
        reply = Message(sealed_reply(sealed, receipt), reply_to=ask)
        self.collection.add(client, Member(client, 60), reply)


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    with LocalAuthority(tmp_path / "authority") as authority:
        yield Side(tmp_path, authority)


def test_two_clients_with_one_upload_spend_nobodys_round(side: Side) -> None:
    sealed = side.sealed()
    side.send("first", sealed, side.receipt("first", sealed))
    with pytest.raises(ProtocolError, match="same as another client's"):
        side.send("second", sealed, side.receipt("second", sealed))


def test_a_nonce_is_one_clients(side: Side) -> None:
    nonce, one, two = fresh_nonce(), side.sealed(), side.sealed()
    side.send("first", one, side.receipt("first", one, nonce=nonce))
    with pytest.raises(ProtocolError, match="nonce of another"):
        side.send("second", two, side.receipt("second", two, nonce=nonce))


def test_all_that_is_right_is_taken(side: Side) -> None:
    for name in NAMES:
        sealed = side.sealed()
        side.send(name, sealed, side.receipt(name, sealed))
