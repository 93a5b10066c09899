"""The one configuration schema: what a run is, frozen and validated.

A TOML file, ``--set key=value`` and Flower's flat run config all end in the same
`Config` (see `calyx.shared.config.load`). Keys are written dotted, as in ``privacy.epsilon``.
The table in docs/configuration.md is made of the descriptions here (`make docs`).
Values that change only speed (workers, engine) are not here: they must not change results.
Each section is a module of this package.
"""

from calyx.shared.config.schema.data import DataConfig, View
from calyx.shared.config.schema.federation import FederationConfig
from calyx.shared.config.schema.model import ModelConfig
from calyx.shared.config.schema.privacy import LARGEST_CLIP_NORM, SMALLEST_CLIP_NORM, PrivacyConfig
from calyx.shared.config.schema.section import (
    FAULTS,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Probability,
    Section,
)
from calyx.shared.config.schema.sections import Sections
from calyx.shared.config.schema.secure_aggregation import (
    DEFAULT_CONTRIBUTORS,
    FEWEST_CONTRIBUTORS,
    MAX_BITS,
    SecureAggregationConfig,
)
from calyx.shared.config.schema.task import MOST_COPIES, TaskConfig, TaskKind
from calyx.shared.config.schema.training import TrainingConfig

__all__ = [
    "DEFAULT_CONTRIBUTORS",
    "FAULTS",
    "FEWEST_CONTRIBUTORS",
    "LARGEST_CLIP_NORM",
    "MAX_BITS",
    "MOST_COPIES",
    "SMALLEST_CLIP_NORM",
    "DataConfig",
    "FederationConfig",
    "ModelConfig",
    "NonNegativeFloat",
    "Positive",
    "PositiveFloat",
    "PrivacyConfig",
    "Probability",
    "Section",
    "Sections",
    "SecureAggregationConfig",
    "TaskConfig",
    "TaskKind",
    "TrainingConfig",
    "View",
]
