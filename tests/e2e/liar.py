"""A device that lies: ``python liar.py DIR FILE``.

The real device with its real training; FILE says how each update is changed on its way out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict

from calyx.client.deployment.launch import join
from calyx.client.deployment.supernode import SuperNode
from calyx.shared.protocol.arrays import to_record

Change = Callable[[RecordDict], RecordDict]


def chunks_changed(change: Callable[[list[bytes]], list[bytes]]) -> Change:
    """A lie about ciphertexts."""

    def lie(content: RecordDict) -> RecordDict:
        record = ConfigRecord(dict(content["sealed"]))  # type: ignore[arg-type]
        record["chunks"] = change(list(record["chunks"]))  # type: ignore[arg-type]
        return RecordDict({"sealed": record})

    return lie


def weights_changed(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """A lie about the first array of an update."""

    def lie(content: RecordDict) -> RecordDict:
        record = content["arrays"]
        weights = {name: record[name].numpy().copy() for name in record}  # type: ignore[union-attr]
        first = next(iter(weights))
        weights[first] = change(weights[first])
        return RecordDict({"arrays": to_record(weights), "metrics": content["metrics"]})

    return lie


LIES: dict[str, Change] = {
    "the truth": lambda content: content,
    "garbage ciphertext": chunks_changed(lambda chunks: [b"\x00" * 1000] * len(chunks)),
    "nothing": lambda content: RecordDict(),
    "NaN": weights_changed(lambda array: np.full_like(array, np.nan)),
    "wrong shape": weights_changed(lambda array: array.reshape(-1)[:3].copy()),
}


def main() -> None:
    """Serve as the device of a folder, and lie."""
    directory, chosen = Path(sys.argv[1]), Path(sys.argv[2]).absolute()
    honest = SuperNode._reply

    def lying(node: SuperNode, message: Message, context: Context) -> Message:
        reply = honest(node, message, context)
        if message.metadata.message_type != "train" or reply.has_error():
            return reply
        return Message(LIES[chosen.read_text()](reply.content), reply_to=message)

    SuperNode._reply = lying  # type: ignore[method-assign]
    join(directory, on_event=lambda event: print(event.text, flush=True))  # noqa: T201


if __name__ == "__main__":
    main()
