"""Heads that others keep: what a witness receives, what it returns, and what that shows.

::

    calyx audit head RUN_DIR           ── head.json ──▶   calyx authority witness DIR head.json
    calyx audit witness RUN_DIR FILE   ◀─ signed word ──  (someone other than the auditee)
    RUN_DIR/audit/witnesses.jsonl      what came back, one line each
    RUN_DIR/audit/head.tsr             an RFC 3161 time stamp on the head, where there is one

None of it is part of the report, which has to exist first. `calyx.audit.verify` reads it beside the
report.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from calyx.audit.evidence.hash_chain import canonical_sha256
from calyx.audit.evidence.run_binding import bound
from calyx.audit.evidence.store import OF_EVERY_REPORT, EvidenceStore
from calyx.shared.errors import EvidenceError, ProtocolError, UsageError
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.host.regular_file import check_no_link, read_regular
from calyx.shared.protocol.signatures.witnessed import HeadRequest, WitnessedHead
from calyx.simulations.run_folder import RunFolder

WITNESSES, TIME_STAMP = "witnesses.jsonl", "head.tsr"
_MOST_BYTES, _OPENSSL_S = 1 << 20, 30.0


@dataclass(frozen=True)
class Heads:
    """What a run folder's witnesses can have signed.

    Attributes:
        run: the run's name in its ledgers.
        run_head: over all files of the run, hex.
        audits: heads of its audits, oldest first; the last one is the head of the evidence that
            the report is made from, if that is an audit's.
        is_audited: whether it is.
    """

    run: str
    run_head: str
    audits: tuple[str, ...]
    is_audited: bool

    @property
    def request(self) -> HeadRequest:
        """What to have signed: the latest audit, or the run alone."""
        return HeadRequest(self.run, self.run_head, self.audits[-1] if self.is_audited else "")


@dataclass(frozen=True)
class Witness:
    """What a witness signed about the head of this report.

    Attributes:
        by: the witness, in words.
        what: what was signed.
        since: the time stated.
        is_known: whether it was checked with a key or certificate that the reader named.
    """

    by: str
    what: str
    since: str
    is_known: bool


def heads_of(run_dir: Path) -> Heads:
    """The heads of a run and its audits, after checking all its files.

    Raises:
        UsageError: this is no run.
        EvidenceError: run or evidence were altered.
    """
    folder = RunFolder(run_dir)
    if not folder.exists:
        raise UsageError(
            f"{run_dir} is not a run folder: it has no config.toml",
            hint="name the folder that calyx simulate shows at its end",
        )
    if not (folder.path / "audit" / "evidence").exists():
        return Heads(folder.run, canonical_sha256(bound(folder.path)), (), False)
    store = EvidenceStore.existing(folder.path)
    store.check()
    return _heads(folder.run, store)


def _heads(run: str, store: EvidenceStore) -> Heads:
    is_audited = not OF_EVERY_REPORT.issuperset(store.names())
    own = (store.head,) if is_audited else ()
    return Heads(run, run_head(store), (*store.earlier, *own), is_audited)


def run_head(store: EvidenceStore) -> str:
    """SHA-256 over what evidence binds of its run: the same for all its audits, hex."""
    binds = store.binds
    return canonical_sha256({key: binds[key] for key in ("config_digest", "files", "ledgers")})


def keep(run_dir: Path, text: str) -> WitnessedHead:
    """Put a witness's word beside the report, if it is about this run and its audits.

    Raises:
        ProtocolError: it is no such word.
        EvidenceError: it is not genuine, or about something else.
    """
    found = WitnessedHead.from_json(text)
    heads = heads_of(run_dir)
    before = _stored(run_dir)
    _check(found, heads, "the word of the witness")
    lines = dict.fromkeys(one.to_json() for one in (*before, found))  # each once
    _write(run_dir, WITNESSES, ("\n".join(lines) + "\n").encode())
    return found


def keep_time_stamp(run_dir: Path, stamp: Path, tsa_ca: Path) -> str:
    """Put an RFC 3161 response on the head beside the report; returns its time.

    Raises:
        UsageError: the file cannot be read.
        EvidenceError: it is not about this head, or not from an authority of these certificates.
    """
    try:
        content = stamp.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{stamp} cannot be read: {error.strerror}",
            hint="check the path",
        ) from None
    since = _stamped_at(content, str(stamp), _stamped_head(heads_of(run_dir)), tsa_ca)
    _write(run_dir, TIME_STAMP, content)
    return since


def _write(run_dir: Path, name: str, content: bytes) -> None:
    path = run_dir.absolute() / "audit" / name
    try:
        check_no_link(path, run_dir.absolute())
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise EvidenceError(
            f"{path} cannot be written: {error}",
            hint="check the folder's permissions and free space",
        ) from None


def examine(
    run_dir: Path, store: EvidenceStore, authority_key: bytes | None, tsa_ca: Path | None
) -> tuple[Witness, ...]:
    """All signed words on the head of a report.

    Args:
        run_dir: the run, whose evidence was checked.
        store: the evidence.
        authority_key: a key that the reader trusts; its word must be there.
        tsa_ca: certificates of a time-stamping authority that the reader trusts; its stamp must be
            there.

    Raises:
        EvidenceError: a word is not genuine or contradicts the folder, or is missing.
    """
    heads = _heads(RunFolder(run_dir).run, store)
    stored = _stored(run_dir)
    for one in stored:
        _check(one, heads, str(run_dir / "audit" / WITNESSES))
    pinned = authority_key.hex() if authority_key is not None else None
    found = [
        Witness(
            by=f"witness {one.witness[:16]}…",
            what=f"audit {one.audit} of this run" if one.audit else "the files of the run alone",
            since=one.time,
            is_known=one.witness == pinned,
        )
        for one in stored
        if one.audit_head == heads.request.audit_head
    ]
    if pinned is not None and not any(one.is_known for one in found):
        raise EvidenceError(
            f"the head of this report was not signed by witness {pinned[:16]}…",
            hint=f"have it signed with: calyx audit head {run_dir}",
        )
    return (*found, *_time_stamps(run_dir, heads, tsa_ca))


def _time_stamps(run_dir: Path, heads: Heads, tsa_ca: Path | None) -> list[Witness]:
    path = run_dir / "audit" / TIME_STAMP
    what = f"audit {len(heads.audits)} of this folder" if heads.is_audited else "the run alone"
    if tsa_ca is not None:
        if not path.exists():
            raise EvidenceError(
                f"there is no time stamp at {path}",
                hint="add it with: calyx audit witness",
            )
        try:
            content = read_regular(path.absolute(), run_dir.absolute(), _MOST_BYTES)
        except OSError as error:
            raise EvidenceError(
                f"{path} cannot be read: {error}",
                hint="restore it from a copy",
            ) from None
        since = _stamped_at(content, str(path), _stamped_head(heads), tsa_ca)
        return [Witness("time-stamping authority", what, since, True)]
    if path.exists():
        return [Witness("time stamp, not checked without --tsa-ca", what, "unknown", False)]
    return []


def _check(one: WitnessedHead, heads: Heads, where: str) -> None:
    if not one.is_genuine:
        raise EvidenceError(f"{where}: the signature is not that of the key it names")
    if one.run != heads.run:
        raise EvidenceError(f"{where} is about run {one.run!r}, but this is {heads.run!r}")
    if one.run_head != heads.run_head:
        raise EvidenceError(
            f"{where}: the files of this run are not those that were witnessed at {one.time[:19]}"
        )
    if not one.audit_head:
        return
    if one.audit_head not in heads.audits:
        raise EvidenceError(
            f"{where}: an audit of this run that was witnessed at {one.time[:19]} as number "
            f"{one.audit} is not in this folder; its evidence was removed or altered"
        )
    known = heads.audits.index(one.audit_head) + 1
    if one.audit > known:
        raise EvidenceError(
            f"{where}: this is audit {one.audit} of the run at its witness, and this folder knows "
            f"of {known}; evidence of {one.audit - known} was removed"
        )


def _stored(run_dir: Path) -> Sequence[WitnessedHead]:
    path = run_dir / "audit" / WITNESSES
    try:
        text = read_regular(path.absolute(), run_dir.absolute(), _MOST_BYTES).decode("utf-8")
        return [WitnessedHead.from_json(line) for line in text.splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, ProtocolError) as error:
        raise EvidenceError(
            f"{path} cannot be read: {error}",
            hint="restore it from a copy",
        ) from None


def _stamped_head(heads: Heads) -> str:
    return heads.request.audit_head or heads.run_head


def _stamped_at(content: bytes, where: str, head: str, tsa_ca: Path) -> str:
    """When a head was stamped; OpenSSL checks signature, chain and purpose.

    The time is read from the token, which is signed as a whole. The response around it is not: its
    status can hold any text.
    """
    with tempfile.TemporaryDirectory(prefix="calyx-stamp-") as name:
        response, token = Path(name) / "response.tsr", Path(name) / "token.tst"
        response.write_bytes(content)
        verify = ("-verify", "-digest", head, "-in", str(response), "-CAfile", str(tsa_ca))
        is_stamped = _openssl(*verify)[0] == 0
        take = ("-reply", "-in", str(response), "-token_out", "-out", str(token))
        if not is_stamped or _openssl(*take)[0]:
            raise EvidenceError(
                f"{where} is not a time stamp on head {head[:16]}… by an authority of {tsa_ca}"
            )
        _, shown = _openssl("-reply", "-in", str(token), "-token_in", "-text")
    found = next((line for line in shown.splitlines() if line.startswith("Time stamp:")), None)
    if found is None:
        raise EvidenceError(f"{where}: openssl shows no time in this time stamp")
    return found.partition(":")[2].strip()


def _openssl(*arguments: str) -> tuple[int, str]:
    program = shutil.which("openssl")
    if program is None:
        raise UsageError(
            "the command openssl, which checks time stamps, is not installed",
            hint="install it",
        )
    try:
        done = subprocess.run(
            [program, "ts", *arguments], capture_output=True, text=True, timeout=_OPENSSL_S
        )
    except subprocess.TimeoutExpired:
        raise EvidenceError("openssl did not finish checking the time stamp in time") from None
    return done.returncode, done.stdout
