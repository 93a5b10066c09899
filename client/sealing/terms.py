"""What the authority must have signed for a device before anything is sealed under it.

One run has one configuration, one plan and one minimum, for all of its contributors: the authority
signs the same terms for each (docs/adr/0018). A device compares them with what *it* was told and
what its owner wants: when the offer is made, before each charge, and again at each sealing. So if
anyone tells two honest devices different things, one of them refuses, uncharged.
"""

from __future__ import annotations

from dataclasses import dataclass

from calyx.shared.config import Config
from calyx.shared.config.load import digest as config_digest
from calyx.shared.encryption import SealingParameters
from calyx.shared.errors import PolicyViolation, ProtocolError
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.sealed.admission import Admission
from calyx.shared.protocol.sealed.messages import common_plan_digest


@dataclass(frozen=True)
class SealingTerms:
    """What a device expects of an admission.

    Attributes:
        run, client: what it must be for.
        config_digest: of the configuration that the device was sent.
        parameters: how to pack and encrypt: as offered, later as they follow from plan and model.
        least: no sum of fewer contributors may be released.
        plan_digest: of the plan, where all share it; None while no plan has been seen.
    """

    run: str
    client: str
    config_digest: str
    parameters: SealingParameters
    least: int
    plan_digest: str | None = None

    @classmethod
    def of(
        cls,
        run: str,
        client: str,
        config: Config,
        parameters: SealingParameters,
        owners_least: int,
        plan: PrivacyPlan | None = None,
    ) -> SealingTerms:
        """The terms that follow from what a device was told.

        Args:
            run: as named by the server.
            client: this device's name.
            config: the run as the server describes it.
            parameters: how vectors are to be packed and encrypted.
            owners_least: the owner's minimum of contributors; 0 in a simulation.
            plan: this device's plan; None at the offer, which comes before it.
        """
        # The noise of a sum is sized for `shares` contributors: with fewer there is too little.
        shares = plan.mechanism.shares if plan is not None and plan.mechanism is not None else 0
        return cls(
            run=run,
            client=client,
            config_digest=config_digest(config),
            parameters=parameters,
            least=max(config.secure_aggregation.min_contributors, owners_least, shares),
            plan_digest=None if plan is None else common_plan_digest(plan),
        )

    def check(self, admission: Admission) -> None:
        """Let an admission pass only if it says all of this; who signed it is not checked here.

        Raises:
            ProtocolError: it is for another run or client.
            PolicyViolation: its terms are others, or its minimum is lower.
        """
        if (admission.run, admission.contributor) != (self.run, self.client):
            raise ProtocolError("the admission to the sealed run is for another run or client")
        for what, signed, told in (
            ("configuration", admission.config_digest, self.config_digest),
            ("sealing parameters", admission.parameters_digest, self.parameters.digest),
            ("privacy plan", admission.plan_digest, self.plan_digest),
        ):
            if told is not None and signed != told:
                raise PolicyViolation(
                    f"the {what} that this device was told is not what the key authority signed "
                    f"for all contributors of run {self.run!r}",
                    hint="do not take part, and ask the operator of the key authority",
                )
        if admission.is_tagged != (self.parameters.scheme == "bfv"):
            raise PolicyViolation(
                f"the key authority's terms of run {self.run!r} are those of another scheme"
            )
        if admission.min_contributors < self.least:
            raise PolicyViolation(
                f"the key authority would release sums of {admission.min_contributors} clients in "
                f"run {self.run!r}; the run, its noise or this device's owner requires "
                f"{self.least}"
            )
