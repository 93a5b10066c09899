"""Messages as clients would send them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from calyx.shared.protocol.arrays import Weights, to_record
from calyx.simulations.engines.grid import take_identity

Reply = Callable[..., Message]


@pytest.fixture(autouse=True)
def _identity() -> None:
    take_identity()


@pytest.fixture
def reference() -> Weights:
    return {
        "w": np.zeros((3, 2), np.float32),
        "b": np.zeros(2, np.float32),
        "scale": np.array(0.0, np.float32),
    }


@pytest.fixture
def reply(reference: Weights) -> Reply:
    """Build a reply: arrays to replace, metrics, or a whole content."""

    def build(
        arrays: Mapping[str, np.ndarray] | ArrayRecord | None = None,
        metrics: Mapping[str, object] | None = None,
        content: RecordDict | None = None,
    ) -> Message:
        ask = Message(RecordDict(), dst_node_id=2, message_type="train")
        if content is None:
            record = arrays if isinstance(arrays, ArrayRecord) else None
            if record is None:
                record = to_record({**reference, **(arrays or {})})
            numbers = {"num-examples": 100} if metrics is None else dict(metrics)
            content = RecordDict({"arrays": record, "metrics": MetricRecord(numbers)})
        return Message(content, reply_to=ask)

    return build
