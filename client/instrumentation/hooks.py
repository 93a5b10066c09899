"""What an audited simulation adds to private training; a real device adds nothing."""

from __future__ import annotations

from dataclasses import dataclass

from calyx.client.instrumentation.batch_log import BatchLog
from calyx.client.instrumentation.canaries import Canaries


@dataclass(frozen=True)
class Audit:
    """The additions.

    Attributes:
        batches: where the batches are written down; None for nowhere.
        canaries: records whose gradients the auditor knows; None for none.
    """

    batches: BatchLog | None = None
    canaries: Canaries | None = None


NO_AUDIT = Audit()
