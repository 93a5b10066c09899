"""Heads that someone else keeps: what a witness signs, and what a forger cannot get round."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.evidence.witnesses import WITNESSES, heads_of, keep, keep_time_stamp
from calyx.audit.run import audit_run
from calyx.audit.verify import verify
from calyx.authority.launch import init, witness
from calyx.authority.log.witness import LOG_NAME
from calyx.cli.main import main
from calyx.shared.errors import EvidenceError, LedgerError, ProtocolError, RunError, UsageError
from calyx.shared.protocol.signatures.witnessed import HeadRequest, WitnessedHead

RUN = "run-0123456789abcdef"


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return init(tmp_path / "authority").directory


def key_of(authority: Path) -> bytes:
    return bytes.fromhex((authority / "authority.pub").read_text().strip())


def audited(run_dir: Path) -> Path:
    """An audit that takes no time: what it finds does not matter here."""
    audit_run(run_dir, only=["views"], skip=["views"], progress=lambda _what, _share: None)
    return run_dir


def signed(authority: Path, run_dir: Path) -> WitnessedHead:
    return witness(authority, heads_of(run_dir).request.to_json(), passphrase=None)


@pytest.fixture(scope="session")
def once_audited(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once") / "run"
    return audited(Path(shutil.copytree(finished_run, folder)))


@pytest.fixture
def folder(once_audited: Path, tmp_path: Path) -> Path:
    """A run with one audit, that a test may change."""
    return Path(shutil.copytree(once_audited, tmp_path / "audited"))


def test_a_witnessed_audit_says_by_whom_since_when_and_which_it_is(
    folder: Path, authority: Path
) -> None:
    assert verify(folder).witnesses == ()
    word = keep(folder, signed(authority, folder).to_json())
    found = verify(folder, authority_key=key_of(authority))
    (one,) = found.witnesses
    assert one.is_known and one.since == word.time and one.what == "audit 1 of this run"
    assert found.report.audit.number == 1 and word.run_head == found.report.audit.run_head
    # Unless the reader names a key, the word is of an unknown witness.
    assert [w.is_known for w in verify(folder).witnesses] == [False]


def test_a_reader_who_names_a_key_gets_no_report_that_it_did_not_sign(
    folder: Path, authority: Path, tmp_path: Path
) -> None:
    with pytest.raises(EvidenceError, match="was not signed by witness"):
        verify(folder, authority_key=key_of(authority))
    other = init(tmp_path / "the auditee's own").directory
    keep(folder, signed(other, folder).to_json())
    with pytest.raises(EvidenceError, match="was not signed by witness"):
        verify(folder, authority_key=key_of(authority))


def test_an_audit_that_is_repeated_until_it_pleases_shows(folder: Path, authority: Path) -> None:
    """The first one is removed with all its traces; its witness has counted it."""
    keep(folder, signed(authority, folder).to_json())
    before = (folder / "audit" / WITNESSES).read_bytes()
    shutil.rmtree(folder / "audit")
    audited(folder)
    assert verify(folder).report.audit.number == 1
    word = signed(authority, folder)
    assert word.audit == 2
    with pytest.raises(EvidenceError, match="knows of 1; evidence of 1 was removed"):
        keep(folder, word.to_json())
    (folder / "audit" / WITNESSES).write_text(word.to_json() + "\n")
    with pytest.raises(EvidenceError, match="evidence of 1 was removed"):
        verify(folder, authority_key=key_of(authority))
    (folder / "audit" / WITNESSES).write_bytes(before)
    with pytest.raises(EvidenceError, match="is not in this folder"):
        verify(folder, authority_key=key_of(authority))
    (folder / "audit" / WITNESSES).unlink()
    with pytest.raises(EvidenceError, match="was not signed"):
        verify(folder, authority_key=key_of(authority))


def test_a_second_audit_that_hides_nothing_is_the_second(folder: Path, authority: Path) -> None:
    keep(folder, signed(authority, folder).to_json())
    audited(folder)
    with pytest.raises(EvidenceError, match="was not signed"):  # the first one's word is no use
        verify(folder, authority_key=key_of(authority))
    keep(folder, signed(authority, folder).to_json())
    (one,) = verify(folder, authority_key=key_of(authority)).witnesses
    assert one.what == "audit 2 of this run"


def test_run_and_audit_that_were_made_anew_are_not_those_that_were_witnessed(
    run_dir: Path, authority: Path
) -> None:
    keep(run_dir, signed(authority, run_dir).to_json())  # the run alone, before any audit
    journal = run_dir / "metrics.jsonl"
    journal.write_bytes(journal.read_bytes() + b"{")  # a line that was cut short
    audited(run_dir)
    with pytest.raises(EvidenceError, match="are not those that were witnessed at"):
        verify(run_dir)
    with pytest.raises(RunError, match="was witnessed at .* with other files"):
        signed(authority, run_dir)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"time": "2020-01-01T00:00:00+00:00"}, "not that of the key"),
        ({"audit": 7}, "not that of the key"),
        ({"run": "another"}, "not that of the key"),
        ({"audit_head": "0" * 64}, "not that of the key"),
        ({"signature": b""}, "not that of the key"),
    ],
)
def test_a_word_that_was_changed_is_no_word(
    folder: Path, authority: Path, change: dict[str, object], fault: str
) -> None:
    word = replace(signed(authority, folder), **change)  # type: ignore[arg-type]
    (folder / "audit" / WITNESSES).write_text(word.to_json() + "\n")
    with pytest.raises(EvidenceError, match=fault):
        verify(folder)


def test_a_forger_with_a_key_of_his_own_names_that_key(folder: Path, authority: Path) -> None:
    word = signed(authority, folder)
    forged = replace(word, time="2020-01-01T00:00:00+00:00").signed(Ed25519PrivateKey.generate())
    keep(folder, forged.to_json())
    assert [one.is_known for one in verify(folder).witnesses] == [False]
    stolen_name = replace(forged, witness=word.witness)
    with pytest.raises(EvidenceError, match="not that of the key"):
        keep(folder, stolen_name.to_json())


def test_a_word_on_another_run_is_refused(folder: Path, authority: Path) -> None:
    request = replace(heads_of(folder).request, run=RUN)
    word = witness(authority, request.to_json(), passphrase=None)
    with pytest.raises(EvidenceError, match=f"is about run '{RUN}'"):
        keep(folder, word.to_json())


def test_an_audit_takes_over_no_evidence_that_came_with_the_folder(run_dir: Path) -> None:
    """Accuracy by class that was never computed, in a chain that fits the run but has no audit."""
    forged = EvidenceStore(run_dir)
    forged.put_arrays("evaluation", {"made-up": np.ones(1)})
    audited(run_dir)
    store = EvidenceStore.existing(run_dir)
    assert "made-up" not in store.get_arrays("evaluation")
    assert verify(run_dir).report.audit.number == 1  # what came with it was no audit


def test_the_commands_lead_from_head_to_verified_word(
    folder: Path, authority: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    head, word = str(tmp_path / "head.json"), str(tmp_path / "witness.json")
    report, key = str(folder / "audit" / "report.json"), str(authority / "authority.pub")
    assert main(["audit", "verify", report]) == 0
    assert "no witness whose key you named keeps this head" in " ".join(
        capfd.readouterr().out.split()
    )
    assert main(["audit", "verify", report, "--authority-key", key]) == 1
    assert main(["audit", "head", str(folder), "--out", head]) == 0
    assert main(["authority", "witness", str(authority), head, "--out", word]) == 0
    assert main(["audit", "witness", str(folder), word]) == 0
    capfd.readouterr()
    assert main(["audit", "verify", report, "--authority-key", key, "--json"]) == 0
    (one,) = json.loads(capfd.readouterr().out)["witnesses"]
    assert one["is_known"] and one["what"] == "audit 1 of this run"
    # The report is not a key, and a witness's word is not a request.
    assert main(["audit", "verify", report, "--authority-key", report]) == 2
    assert main(["authority", "witness", str(authority), word]) == 1
    assert main(["audit", "witness", str(folder)]) == 2


def request(audit: str = "", run_head: str = "a" * 64) -> str:
    return HeadRequest(RUN, run_head, audit and audit * 64).to_json()


def test_a_witness_counts_each_audit_once_and_says_the_same_again(authority: Path) -> None:
    words = [witness(authority, request(a), passphrase=None) for a in ("", "b", "c", "b", "")]
    assert [word.audit for word in words] == [0, 1, 2, 1, 0]
    assert words[3] == words[1] and words[4] == words[0]
    assert len({word.log_hash for word in words}) == 3
    assert all(
        word.is_genuine and bytes.fromhex(word.witness) == key_of(authority) for word in words
    )


def test_a_shortened_log_signs_nothing(authority: Path) -> None:
    for audit in ("b", "c"):
        witness(authority, request(audit), passphrase=None)
    log = authority / LOG_NAME
    log.write_text(log.read_text().splitlines(keepends=True)[0])
    with pytest.raises(LedgerError, match="its end was cut off"):
        witness(authority, request("d"), passphrase=None)


def test_nothing_is_counted_that_cannot_be_signed(authority: Path) -> None:
    key = authority / "identity.key"
    key.rename(authority / "elsewhere")
    with pytest.raises(RunError, match="cannot be opened"):
        witness(authority, request("b"), passphrase=None)
    assert not (authority / LOG_NAME).exists()


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", json.dumps({"run": "x", "run_head": "1", "audit_head": ""}), "[" * 10_000],
)
def test_a_request_that_is_none_is_refused(authority: Path, text: str) -> None:
    with pytest.raises(ProtocolError):
        witness(authority, text, passphrase=None)
    assert not (authority / LOG_NAME).exists()


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def stamped(tmp_path: Path) -> Path:
    """A folder with a time-stamping authority of its own: tsa.pem, tsa-key.pem, tsa.cnf."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command")
    made = tmp_path / "tsa"
    made.mkdir()
    (made / "tsa.cnf").write_text(
        "[tsa]\ndefault_tsa = it\n[it]\nserial = serial\nsigner_cert = tsa.pem\n"
        "signer_key = tsa-key.pem\ndefault_policy = 1.2.3.4\ndigests = sha256\n"
        "signer_digest = sha256\n"
    )
    (made / "serial").write_text("01\n")
    extension = ("-addext", "extendedKeyUsage=critical,timeStamping")
    names = ("-keyout", "tsa-key.pem", "-out", "tsa.pem", "-subj", "/CN=tsa", "-days", "2")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, *extension, cwd=made)
    return made


def stamp(tsa: Path, head: str) -> Path:
    openssl("ts", "-query", "-sha256", "-cert", "-digest", head, "-out", "q.tsq", cwd=tsa)
    made = ("-queryfile", "q.tsq", "-config", "tsa.cnf", "-out", "head.tsr")
    openssl("ts", "-reply", *made, cwd=tsa)
    return tsa / "head.tsr"


def test_a_time_stamp_on_the_head_is_checked(folder: Path, stamped: Path) -> None:
    ca, head = stamped / "tsa.pem", EvidenceStore.existing(folder).head
    with pytest.raises(EvidenceError, match="there is no time stamp"):
        verify(folder, tsa_ca=ca)
    with pytest.raises(EvidenceError, match="is not a time stamp on head"):
        keep_time_stamp(folder, stamp(stamped, "0" * 64), ca)
    since = keep_time_stamp(folder, stamp(stamped, head), ca)
    (one,) = verify(folder, tsa_ca=ca).witnesses
    assert one.is_known and one.since == since and "GMT" in since
    assert [w.is_known for w in verify(folder).witnesses] == [False]
    with pytest.raises(UsageError, match="cannot be read"):
        keep_time_stamp(folder, stamped / "none.tsr", ca)
    audited(folder)  # another head
    with pytest.raises(EvidenceError, match="is not a time stamp on head"):
        verify(folder, tsa_ca=ca)
