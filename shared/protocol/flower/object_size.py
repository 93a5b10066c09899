"""What an object of a message will take in memory, seen before anything is made of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ConfigRecord, MetricRecord
from flwr.proto.recorddict_pb2 import ConfigRecord as ConfigRecordProto
from flwr.proto.recorddict_pb2 import MetricRecord as MetricRecordProto
from flwr.supercore.inflatable.inflatable_object import (
    get_object_body,
    get_object_head_values_from_object_content,
)
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]


@dataclass(frozen=True)
class Look:
    """What an object of a message will take in memory, beside its bytes.

    Attributes:
        parts: of an array: the objects it is put together from, each as often as it is used.
        values: of a record of settings or figures: how many it has, those in lists counted one by
            one.
        is_structure: it is neither a record nor data of an array.
    """

    parts: tuple[str, ...] = ()
    values: int = 0
    is_structure: bool = False


def look_into(content: bytes) -> Look:
    """Look at an object before anything is made of it.

    Args:
        content: as fetched.

    Raises:
        ValueError: it cannot be read.
    """
    kind, children, _ = get_object_head_values_from_object_content(content)
    if kind == "Array":
        body = json.loads(get_object_body(content, Array))
        parts = tuple(children[int(index)] for index in body["arraychunk_ids"])
        return Look(parts=parts, is_structure=True)
    if kind in _RECORDS:
        record, proto = _RECORDS[kind]
        try:
            items = proto.FromString(get_object_body(content, record)).items
        except DecodeError as error:
            raise ValueError(f"no record: {error}") from None
        return Look(values=len(items) + sum(map(_in_list, items)))
    return Look(is_structure=kind != "ArrayChunk")


def _in_list(item: Any) -> int:
    kind = item.value.WhichOneof("value") or ""
    return len(getattr(item.value, kind).vals) if kind.endswith("_list") else 0


_RECORDS: dict[str, tuple[Any, Any]] = {
    "ConfigRecord": (ConfigRecord, ConfigRecordProto),
    "MetricRecord": (MetricRecord, MetricRecordProto),
}
