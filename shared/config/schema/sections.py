"""All sections, each valid by itself."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from calyx.shared.config.schema.data import DataConfig
from calyx.shared.config.schema.federation import FederationConfig
from calyx.shared.config.schema.model import ModelConfig
from calyx.shared.config.schema.privacy import PrivacyConfig
from calyx.shared.config.schema.section import Section
from calyx.shared.config.schema.secure_aggregation import SecureAggregationConfig
from calyx.shared.config.schema.task import TaskConfig
from calyx.shared.config.schema.training import TrainingConfig


class Sections(Section):
    """All sections, each valid by itself; `Config` checks them together."""

    name: str = Field(
        "",
        description="Name of the preset or file the run was made from. Filled in when it is read; "
        "no effect on results.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0,
        description="Seed of everything that is random in a simulation: held-out test set, "
        "partition, initial weights, cohorts, order of batches and, in simulations only, the "
        "noise. On a real device the noise comes from the operating system.",
    )
    data: DataConfig = DataConfig()
    task: TaskConfig = TaskConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    federation: FederationConfig = FederationConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    secure_aggregation: SecureAggregationConfig = SecureAggregationConfig()

    @property
    def is_private(self) -> bool:
        """Whether the run gives any differential privacy."""
        return self.privacy.is_private

    @property
    def is_sealed(self) -> bool:
        """Whether single updates are encrypted, so that the server sees only sums."""
        return self.secure_aggregation.scheme != "none"

    @property
    def has_common_plan(self) -> bool:
        """Whether all clients follow one plan, that of the client with the most records.

        A sealed sum needs one grid and one noise. With local noise each client protects itself.
        """
        return self.is_sealed and self.privacy.noise != "local"

    @property
    def tells_record_counts(self) -> bool:
        """Whether each client's own number of records reaches the server."""
        return not self.is_private or self.privacy.record_counts == "public"

    @property
    def cohort_size(self) -> int:
        """Clients asked each round."""
        return self.federation.clients_per_round or self.federation.clients
