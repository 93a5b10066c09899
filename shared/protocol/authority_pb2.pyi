# fmt: off
# mypy: ignore-errors
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RunName(_message.Message):
    __slots__ = ("run",)
    RUN_FIELD_NUMBER: _ClassVar[int]
    run: str
    def __init__(self, run: _Optional[str] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RunTerms(_message.Message):
    __slots__ = ("run", "parameters", "min_contributors", "contributors")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    MIN_CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    run: str
    parameters: str
    min_contributors: int
    contributors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run: _Optional[str] = ..., parameters: _Optional[str] = ..., min_contributors: _Optional[int] = ..., contributors: _Optional[_Iterable[str]] = ...) -> None: ...

class RunPart(_message.Message):
    __slots__ = ("public_context", "admission")
    PUBLIC_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    public_context: bytes
    admission: str
    def __init__(self, public_context: _Optional[bytes] = ..., admission: _Optional[str] = ...) -> None: ...

class ReleasePart(_message.Message):
    __slots__ = ("header", "receipt", "chunk")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    header: ReleaseHeader
    receipt: str
    chunk: bytes
    def __init__(self, header: _Optional[_Union[ReleaseHeader, _Mapping]] = ..., receipt: _Optional[str] = ..., chunk: _Optional[bytes] = ...) -> None: ...

class ReleaseHeader(_message.Message):
    __slots__ = ("run", "round", "contributors", "sum_hash", "receipts", "chunks")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    SUM_HASH_FIELD_NUMBER: _ClassVar[int]
    RECEIPTS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    run: str
    round: int
    contributors: int
    sum_hash: str
    receipts: int
    chunks: int
    def __init__(self, run: _Optional[str] = ..., round: _Optional[int] = ..., contributors: _Optional[int] = ..., sum_hash: _Optional[str] = ..., receipts: _Optional[int] = ..., chunks: _Optional[int] = ...) -> None: ...

class ReleasedPart(_message.Message):
    __slots__ = ("header", "values")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    header: ReleasedHeader
    values: bytes
    def __init__(self, header: _Optional[_Union[ReleasedHeader, _Mapping]] = ..., values: _Optional[bytes] = ...) -> None: ...

class ReleasedHeader(_message.Message):
    __slots__ = ("count", "log_index", "log_hash")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    LOG_INDEX_FIELD_NUMBER: _ClassVar[int]
    LOG_HASH_FIELD_NUMBER: _ClassVar[int]
    count: int
    log_index: int
    log_hash: str
    def __init__(self, count: _Optional[int] = ..., log_index: _Optional[int] = ..., log_hash: _Optional[str] = ...) -> None: ...
