"""A signature holds for one message to one device in one run, whatever is changed about it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.flower import internals as flower
from calyx.shared.protocol.signatures.instruction import SIGNED, content_digest, sign, verify
from calyx.simulations.engines.grid import take_identity

KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
NODE, NAME, RUN_CONFIG = 7, "clinic", {"seed": 1, "name": "x", "privacy.epsilon": 3.0, "flag": True}


@pytest.fixture(autouse=True)
def _identity() -> None:
    take_identity()


def signed(kind: str = "train", sequence: int = 5) -> Message:
    arrays = ArrayRecord({"w": Array(np.arange(6, dtype=np.float32).reshape(2, 3))})
    fields = ConfigRecord({"run": "r", "round": 1, "mu": 0.0, "list": [1, 2], "raw": b"\0"})
    content = RecordDict({"arrays": arrays, "instruction": fields, "m": MetricRecord({"a": 1.5})})
    message = Message(content, NODE, kind, group_id="1")
    sign(KEY, message, NAME, RUN_CONFIG, sequence)
    return message


def as_received(message: Message) -> Message:
    """What comes out at the other end of Flower's wire."""
    with flower.no_object_id_recompute():
        contents = {k: o.deflate() for k, o in flower.get_all_nested_objects(message).items()}
        tree = flower.get_object_tree(message)
    return flower.pull_and_inflate_object_from_tree(
        tree, contents.__getitem__, lambda object_id: None, return_type=Message
    )


def test_it_holds_after_the_way_through_flower_and_is_taken_out() -> None:
    message = as_received(signed())
    assert verify(PUBLIC, message, NAME, NODE, RUN_CONFIG) == 5
    assert list(message.content) == ["arrays", "instruction", "m"]


def test_an_empty_message_can_be_signed() -> None:
    message = Message(RecordDict(), NODE, "query")
    sign(KEY, message, NAME, RUN_CONFIG, 1)
    assert verify(PUBLIC, as_received(message), NAME, NODE, RUN_CONFIG) == 1


def other_array(content: RecordDict) -> None:
    content["arrays"] = ArrayRecord({"w": Array(np.ones((2, 3), np.float32))})


def other_shape(content: RecordDict) -> None:
    array = content.array_records["arrays"]["w"]
    changed = Array(array.dtype, (3, 2), array.stype, array.data)
    content["arrays"] = ArrayRecord({"w": changed})


def other_type(content: RecordDict) -> None:
    array = content.array_records["arrays"]["w"]
    content["arrays"] = ArrayRecord({"w": Array("int32", array.shape, array.stype, array.data)})


def swapped(content: RecordDict) -> None:
    content["instruction"], content["other"] = ConfigRecord({"a": 1}), content["instruction"]


def field(name: str, value: object) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        content.config_records["instruction"][name] = value  # type: ignore[assignment]

    return change


def envelope(name: str, value: object) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        content.config_records[SIGNED][name] = value  # type: ignore[assignment]

    return change


CHANGES: dict[str, Callable[[RecordDict], None]] = {
    "another value": field("round", 2),
    "a value of another type": field("round", True),
    "a number as text": field("round", "1"),
    "another float": field("mu", -0.0),
    "a list instead of a value": field("round", [1]),
    "another order in a list": field("list", [2, 1]),
    "other bytes": field("raw", b"\1"),
    "a field more": field("more", 0),
    "other weights": other_array,
    "another shape": other_shape,
    "another dtype": other_type,
    "another metric": lambda content: content.metric_records["m"].update(a=1.6),
    "a record less": lambda content: content.pop("m") and None,
    "a record more": lambda content: content.update(x=ConfigRecord({})),
    "a record under another name": swapped,
    "no signature": lambda content: content.pop(SIGNED) and None,
    "another number": envelope("sequence", 6),
    "a number that is none": envelope("sequence", "5"),
    "number 0": envelope("sequence", 0),
    "another form": envelope("format", 2),
    "a signature of zeros": envelope("signature", bytes(64)),
    "a signature that is text": envelope("signature", "x"),
    "more in the envelope": envelope("note", "x"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_whatever_is_changed_in_it_is_seen(name: str) -> None:
    message = signed()
    CHANGES[name](message.content)
    with pytest.raises(ProtocolError):
        verify(PUBLIC, message, NAME, NODE, RUN_CONFIG)


@pytest.mark.parametrize(
    ("about", "value"),
    [("_message_type", "evaluate"), ("_message_type", "query"), ("_run_id", 2), ("_group_id", "2")],
)
def test_it_holds_for_one_kind_of_message_of_one_run(about: str, value: object) -> None:
    message = signed()
    message.metadata.__dict__[about] = value
    with pytest.raises(ProtocolError, match="was not signed by the server"):
        verify(PUBLIC, message, NAME, NODE, RUN_CONFIG)


def test_it_holds_for_one_device_one_key_and_one_configuration() -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    for key, name, node, config in (
        (other, NAME, NODE, RUN_CONFIG),
        (PUBLIC, "clinic-b", NODE, RUN_CONFIG),
        (PUBLIC, "", NODE, RUN_CONFIG),
        (PUBLIC, NAME, 8, RUN_CONFIG),
        (PUBLIC, NAME, NODE, {**RUN_CONFIG, "seed": 2}),
        (PUBLIC, NAME, NODE, {**RUN_CONFIG, "seed": True}),
        (PUBLIC, NAME, NODE, {**RUN_CONFIG, "privacy.epsilon": 3}),
        (PUBLIC, NAME, NODE, {**RUN_CONFIG, "more": 1}),
        (PUBLIC, NAME, NODE, {}),
    ):
        with pytest.raises(ProtocolError):
            verify(key, signed(), name, node, config)
    assert verify(PUBLIC, signed(), NAME, NODE, dict(reversed(RUN_CONFIG.items()))) == 5


def test_an_error_of_flowers_is_no_instruction() -> None:
    from flwr.app import Error

    empty = Message(Error(code=1), reply_to=Message(RecordDict(), NODE, "train"))
    with pytest.raises(ProtocolError, match="signed messages only"):
        verify(PUBLIC, empty, NAME, NODE, RUN_CONFIG)


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.binary(max_size=5),
)
FIELDS = st.dictionaries(st.text(max_size=3), SCALARS, max_size=3)


@settings(max_examples=200, deadline=None)
@given(FIELDS, FIELDS)
def test_digests_are_equal_only_for_what_is_equal_in_type_and_order(
    one: dict[str, object], other: dict[str, object]
) -> None:
    def digest(fields: dict[str, object]) -> bytes:
        return content_digest(RecordDict({"r": ConfigRecord(dict(fields))}))  # type: ignore[arg-type]

    def shown(fields: dict[str, object]) -> list[str]:
        return [f"{k!r}:{type(v).__name__}:{v!r}" for k, v in fields.items()]

    assert (digest(one) == digest(other)) == (shown(one) == shown(other))
