"""What a device obeys: messages that its own server has signed for it.

TLS shows a device that it talks to its server's SuperLink, not who wrote a message that lies there.
Each message therefore carries an Ed25519 signature by a key that only the ServerApp has and that
the device's owner pinned at enrolment. It covers who it is for (the device's name and Flower's
number of its node), what kind of message it is, which run it belongs to, the run's configuration
(which travels apart from the messages and decides what an instruction means), everything in it,
and a number that only ever grows, so that an old message is not obeyed again.

Nothing of this is sent but number and signature: a device puts in what it knows and sees itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.signatures.signed import canonical, verifies

SIGNED = "signed"
# The public half of the key, hex, in the folder that a server's operator gives to devices' owners.
INSTRUCTION_KEY_FILE = "instructions.pub"
_FORMAT = 1
_MAX_SEQUENCE = 2**63 - 1
RunConfig = Mapping[str, str | int | float | bool]


def sign(
    key: Ed25519PrivateKey,
    message: Message,
    recipient: str,
    run_config: RunConfig,
    sequence: int,
    known: dict[int, bytes] | None = None,
) -> None:
    """Put a signature into a message that is about to be sent.

    Args:
        key: the server's.
        message: to one device; its content is replaced by one with the signature beside it.
        recipient: name of the device.
        run_config: what the device will be told of the run.
        sequence: larger than that of every message signed before.
        known: digests of array records by ``id``, filled here: messages of a round share theirs.
    """
    records = {name: record for name, record in message.content.items() if name != SIGNED}
    content = RecordDict(records)
    node_id = message.metadata.dst_node_id
    text = _signed_bytes(message, content, recipient, node_id, run_config, sequence, known)
    envelope = ConfigRecord({"format": _FORMAT, "sequence": sequence, "signature": key.sign(text)})
    message.content = RecordDict({**records, SIGNED: envelope})


def verify(
    key: bytes, message: Message, recipient: str, node_id: int, run_config: RunConfig
) -> int:
    """Check a message that came, and take the signature out of it.

    Args:
        key: the server's public key, as pinned.
        message: as received.
        recipient: this device's name.
        node_id: Flower's number of this device.
        run_config: what the device was told of the run.

    Returns:
        The message's number; whether it is new is for the caller to see.

    Raises:
        ProtocolError: it is not signed, or not by this key, or not for this device, run and
            content.
    """
    if not message.has_content():
        raise ProtocolError("this device obeys signed messages only, and this one is empty")
    envelope = message.content.get(SIGNED)
    if not isinstance(envelope, ConfigRecord) or set(envelope) != {
        "format",
        "sequence",
        "signature",
    }:
        raise ProtocolError("this device obeys signed messages only, and this one is not signed")
    sequence, signature = envelope["sequence"], envelope["signature"]
    if (
        envelope["format"] != _FORMAT
        or type(sequence) is not int
        or not 0 < sequence <= _MAX_SEQUENCE
        or not isinstance(signature, bytes)
    ):
        raise ProtocolError("the signature of a message has a form that this device does not know")
    records = {name: record for name, record in message.content.items() if name != SIGNED}
    content = RecordDict(records)
    text = _signed_bytes(message, content, recipient, node_id, run_config, sequence, None)
    if not verifies(key, signature, text):
        raise ProtocolError(
            "a message was not signed by the server whose key was pinned at enrolment, or not for "
            "this device, this run, its configuration and this content"
        )
    message.content = content
    return sequence


def content_digest(content: RecordDict, known: dict[int, bytes] | None = None) -> bytes:
    """SHA-256 over all records of a message: names, kinds, order, types and values.

    Raises:
        ProtocolError: it holds something that cannot be sent.
    """
    state = hashlib.sha256(canonical("content", len(content)))
    for name, record in content.items():
        state.update(canonical("record", name, type(record).__name__))
        if isinstance(record, ArrayRecord):
            state.update(_arrays_digest(record, {} if known is None else known))
        elif isinstance(record, ConfigRecord | MetricRecord):
            state.update(_fields_digest(record))
        else:
            raise ProtocolError(f"record {name!r} is of a kind that messages do not have")
    return state.digest()


def config_digest(run_config: RunConfig) -> bytes:
    """SHA-256 over a run's configuration as it is told to devices."""
    return _fields_digest({key: run_config[key] for key in sorted(run_config)})


def _signed_bytes(
    message: Message,
    content: RecordDict,
    recipient: str,
    node_id: int,
    run_config: RunConfig,
    sequence: int,
    known: dict[int, bytes] | None,
) -> bytes:
    about = message.metadata
    return canonical(
        "instruction",
        recipient,
        node_id,
        about.message_type,
        str(about.group_id),
        about.run_id,
        sequence,
        config_digest(run_config),
        content_digest(content, known),
    )


def _arrays_digest(record: ArrayRecord, known: dict[int, bytes]) -> bytes:
    if id(record) not in known:
        state = hashlib.sha256(canonical("arrays", len(record)))
        for name, array in record.items():
            shape = ",".join(str(int(size)) for size in array.shape)
            data = hashlib.sha256(array.data).digest()
            state.update(canonical("array", name, array.dtype, shape, array.stype, data))
        known[id(record)] = state.digest()
    return known[id(record)]


def _fields_digest(fields: Mapping[str, object]) -> bytes:
    state = hashlib.sha256(canonical("fields", len(fields)))
    for name, value in fields.items():
        values = value if isinstance(value, list) else [value]
        kind = "list" if isinstance(value, list) else "value"
        state.update(canonical("field", name, kind, len(values)))
        for item in values:
            state.update(_typed(item))
    return state.digest()


def _typed(value: object) -> bytes:
    """1, 1.0, True and "1" are four different things."""
    if isinstance(value, bool | int | str | bytes):
        return canonical("value", type(value).__name__, value)
    if isinstance(value, float):
        return canonical("value", "float", value.hex())
    raise ProtocolError(f"a field of type {type(value).__name__} cannot be sent")
