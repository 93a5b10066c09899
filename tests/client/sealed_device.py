"""A real device with sealed runs, and what an honest or a dishonest server would send it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from flwr.app import RecordDict

from calyx.authority.local import LocalAuthority
from calyx.client.node import Node
from calyx.client.round import train_round
from calyx.client.sealing.identity import ContributorIdentity
from calyx.shared.config import Config
from calyx.shared.config.load import build, digest, from_settings
from calyx.shared.data import load_folder
from calyx.shared.models import build_model
from calyx.shared.models.vector import dimension
from calyx.shared.privacy.plan import PrivacyPlan, make_plan
from calyx.shared.protocol.arrays import to_record, weights_of
from calyx.shared.protocol.messages import TrainInstruction
from calyx.shared.protocol.sealed.messages import (
    SealingOffer,
    common_plan_digest,
    sealing_parameters,
    sum_shape,
)
from calyx.shared.record_spec import RecordSpec

CONFIG = build(
    from_settings(
        [
            "training.rounds=2",
            "federation.clients=3",
            "privacy.noise=distributed",
            "privacy.sampling=full",
            "secure_aggregation.scheme=bfv",
            "secure_aggregation.min_contributors=2",
            "data.max_records=100",
        ]
    )
)
POLICY = """
[privacy]
max_epsilon = 8.0
max_delta = 1e-4
unit = "any"
noise = ["distributed"]
[secure_aggregation]
min_contributors = 2
[release]
record_counts = true
"""


OTHERS = ("other", "third")


class Side:
    """A real device with system noise, and what a server would send it.

    Args:
        folder: for all that the parties keep.
        authority: opens the runs.
    """

    def __init__(self, folder: Path, authority: LocalAuthority) -> None:
        self.folder, self.authority = folder, authority
        identity = ContributorIdentity.create(folder / "device.key")
        requests = [identity.request("device")]
        for name in OTHERS:
            requests.append(ContributorIdentity.create(folder / f"{name}.key").request(name))
        authority.enrolments.approve(requests)
        (folder / "policy.toml").write_text(POLICY)
        own = load_folder(CONFIG.data).subset(np.arange(60))
        np.savez(folder / "own.npz", x=own.features[:, 0], y=own.labels, classes=np.int64(10))
        self.node = Node.from_settings(
            {
                "client-name": "device",
                "data-source": "npz",
                "data-directory": str(folder / "own.npz"),
                "ledger": str(folder / "ledger.sqlite"),
                "policy": str(folder / "policy.toml"),
                "identity": str(folder / "device.key"),
                "authority-key": authority.verify_key.hex(),
            }
        )
        self.model = build_model(CONFIG.model, RecordSpec.floats((1, 8, 8)), 10, CONFIG.seed)
        size = dimension(self.model)
        self.plan = make_plan(CONFIG, 60, sum_shape(CONFIG, size))
        self.parameters = sealing_parameters(CONFIG, self.plan, size)

    def admit(
        self,
        run: str,
        *,
        config: Config = CONFIG,
        signed: Config | None = None,
        plan: PrivacyPlan | None = None,
        minimum: int | None = None,
    ) -> None:
        """Have the run opened and the offer accepted.

        Args:
            run: its identifier.
            config: what the device gets with the offer.
            signed: what the authority gets, if not the same.
            plan: what the authority gets, if not the run's.
            minimum: what is requested from the authority, if not the run's.
        """
        signed = signed or config
        opening = self.authority.open_run(
            run,
            self.parameters,
            minimum or signed.secure_aggregation.min_contributors,
            ["device", *OTHERS],
            common_plan_digest(plan or self.plan),
            digest(signed),
        )
        admission = opening.admissions["device"]
        offer = SealingOffer(run, self.parameters, opening.public_context, admission)
        self.node.accept_offer(SealingOffer.from_content(offer.to_content()), config)

    def train(
        self,
        run: str = "first",
        number: int = 1,
        shift: float = 0.0,
        plan: PrivacyPlan | None = None,
        config: Config = CONFIG,
    ) -> RecordDict:
        """What the device answers to an instruction."""
        arrays = to_record({k: w + w.dtype.type(shift) for k, w in weights_of(self.model).items()})
        instruction = TrainInstruction(run, number, plan or self.plan, 0.0).to_record()
        return train_round(
            RecordDict({"arrays": arrays, "instruction": instruction}), config, self.node
        )

    def charges(self) -> list[tuple[str, int]]:
        with self.node.ledger(self.node.records(CONFIG)) as ledger:
            return [(entry.run, entry.round) for entry in ledger.entries()]

    @property
    def kept(self) -> Path:
        (path,) = (self.folder / "admissions").glob("*.last-reply")
        return path
