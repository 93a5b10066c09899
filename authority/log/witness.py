"""Signs heads of runs and audits for others, and counts the audits of each run.

They are in ``witnessed.jsonl``, hash-chained like the log of releases and beside it, so that the
operator can sign while the authority is served.

Rules
-----
1. The head of a run's files is what it was the first time: one that was changed is not signed.
2. A new audit head of a run gets the next number; one that was signed gets the same answer again.
3. The line is on disk before anything is signed.

The witness looks at no file of a run. It says that these heads existed at this time, and how many
audits of the run it was shown; if it is shown one of five, it counts one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from calyx.authority.keys.secret_file import read_secret
from calyx.authority.log.events import Witnessed
from calyx.authority.log.log import AuthorityLog, Entry, verify
from calyx.shared.errors import RunError
from calyx.shared.protocol.signatures.witnessed import MOST_AUDITS, HeadRequest, WitnessedHead

LOG_NAME = "witnessed.jsonl"


def witness(directory: Path, request_text: str, *, passphrase: bytes | None) -> WitnessedHead:
    """Write a head down, once, and sign it.

    Args:
        directory: of an authority.
        request_text: as ``calyx audit head`` made it.
        passphrase: as given when the authority was made.

    Raises:
        ProtocolError: the request is malformed.
        RunError: the run was witnessed before, with other files.
        EncryptionError: the key cannot be read.
        LedgerError: the log was altered, or another command writes in it.
    """
    request = HeadRequest.from_json(request_text)
    # First: what cannot be signed must not be counted.
    key = Ed25519PrivateKey.from_private_bytes(read_secret(directory / "identity.key", passphrase))
    path = directory / LOG_NAME
    with AuthorityLog(path) as log:
        before = _of_run(verify(path).entries, request.run)
        if _find(before, request) is None:
            log.append([_next(before, request)])
        entry = _find(_of_run(verify(path).entries, request.run), request)
    assert entry is not None
    event = entry.event
    assert isinstance(event, Witnessed)
    return WitnessedHead(
        run=event.run,
        run_head=event.run_head,
        audit_head=event.audit_head,
        audit=event.audit,
        time=entry.time,
        log_index=entry.index,
        log_hash=entry.hash,
        witness="",
    ).signed(key)


def _next(before: Sequence[Entry], request: HeadRequest) -> Witnessed:
    events = [entry.event for entry in before if isinstance(entry.event, Witnessed)]
    for entry, event in zip(before, events, strict=True):
        if event.run_head != request.run_head:
            raise RunError(
                f"run {request.run!r} was witnessed at {entry.time[:19]} with other files and has "
                "been changed since; its head is not signed"
            )
    audits = sum(1 for event in events if event.audit_head)
    if audits >= MOST_AUDITS:
        raise RunError(
            f"run {request.run!r} was audited {audits} times; no further audit is counted"
        )
    number = audits + 1 if request.audit_head else 0
    return Witnessed(request.run, request.run_head, request.audit_head, number)


def _of_run(entries: Sequence[Entry], run: str) -> list[Entry]:
    return [e for e in entries if isinstance(e.event, Witnessed) and e.event.run == run]


def _find(entries: Sequence[Entry], request: HeadRequest) -> Entry | None:
    wanted = (request.run_head, request.audit_head)
    return next(
        (
            e
            for e in entries
            if isinstance(e.event, Witnessed) and (e.event.run_head, e.event.audit_head) == wanted
        ),
        None,
    )
