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
    __slots__ = ("run", "parameters", "min_contributors", "contributors", "plan_digest", "config_digest", "known_head")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    MIN_CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONFIG_DIGEST_FIELD_NUMBER: _ClassVar[int]
    KNOWN_HEAD_FIELD_NUMBER: _ClassVar[int]
    run: str
    parameters: str
    min_contributors: int
    contributors: _containers.RepeatedScalarFieldContainer[str]
    plan_digest: str
    config_digest: str
    known_head: LogHead
    def __init__(self, run: _Optional[str] = ..., parameters: _Optional[str] = ..., min_contributors: _Optional[int] = ..., contributors: _Optional[_Iterable[str]] = ..., plan_digest: _Optional[str] = ..., config_digest: _Optional[str] = ..., known_head: _Optional[_Union[LogHead, _Mapping]] = ...) -> None: ...

class LogHead(_message.Message):
    __slots__ = ("index", "hash")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    index: int
    hash: str
    def __init__(self, index: _Optional[int] = ..., hash: _Optional[str] = ...) -> None: ...

class ContributorKey(_message.Message):
    __slots__ = ("name", "verify_key")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERIFY_KEY_FIELD_NUMBER: _ClassVar[int]
    name: str
    verify_key: bytes
    def __init__(self, name: _Optional[str] = ..., verify_key: _Optional[bytes] = ...) -> None: ...

class RunPart(_message.Message):
    __slots__ = ("public_context", "admission", "contributor_key")
    PUBLIC_CONTEXT_FIELD_NUMBER: _ClassVar[int]
    ADMISSION_FIELD_NUMBER: _ClassVar[int]
    CONTRIBUTOR_KEY_FIELD_NUMBER: _ClassVar[int]
    public_context: bytes
    admission: str
    contributor_key: ContributorKey
    def __init__(self, public_context: _Optional[bytes] = ..., admission: _Optional[str] = ..., contributor_key: _Optional[_Union[ContributorKey, _Mapping]] = ...) -> None: ...

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
