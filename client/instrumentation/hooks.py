"""What an audited simulation adds to private training; a real device adds nothing."""

from __future__ import annotations

from dataclasses import dataclass

from calyx.client.instrumentation.batch_log import BatchLog
from calyx.client.instrumentation.canaries import Canaries


@dataclass(frozen=True)
class Audit:
    """The additions.

    Attributes:
        batches: log of the batches; None writes none.
        canaries: records whose gradients the auditor knows; None for none.
    """

    batches: BatchLog | None = None
    canaries: Canaries | None = None


NO_AUDIT = Audit()
