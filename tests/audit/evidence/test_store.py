"""Evidence is written once, in order, and any change to it or to the run is found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calyx.audit.evidence.store import CHAIN, EvidenceStore
from calyx.shared.errors import EvidenceError


@pytest.fixture
def store(run_dir: Path) -> EvidenceStore:
    made = EvidenceStore(run_dir)
    made.put_json("commitment", {"sha256": "00"})
    made.put_arrays("scores", {"scores": np.arange(4.0), "coins": np.array([True, False])})
    return made


def test_gives_back_what_was_kept(store: EvidenceStore) -> None:
    again = EvidenceStore(store.run_dir)
    assert again.get_json("commitment") == {"sha256": "00"}
    np.testing.assert_array_equal(again.get_arrays("scores")["scores"], np.arange(4.0))
    assert again.names() == ["commitment", "scores"]
    assert again.index("commitment") < again.index("scores")
    assert again.head == store.head
    again.check()


def test_refuses_to_replace_a_piece(store: EvidenceStore) -> None:
    with pytest.raises(EvidenceError, match="is never replaced"):
        store.put_json("commitment", {"sha256": "11"})


@pytest.mark.parametrize("name", ["", "../escape", "Upper", "genesis", "a" * 81, "a.b"])
def test_refuses_names_that_are_no_names(store: EvidenceStore, name: str) -> None:
    with pytest.raises(EvidenceError, match="not a name"):
        store.put_json(name, 1)


def test_refuses_what_json_and_arrays_cannot_hold(store: EvidenceStore) -> None:
    with pytest.raises(EvidenceError, match="not JSON"):
        store.put_json("infinite", float("inf"))
    with pytest.raises(EvidenceError, match="Python objects"):
        store.put_arrays("objects", {"a": np.array([object()])})


def test_finds_every_flipped_byte_of_evidence_and_run(store: EvidenceStore) -> None:
    files = [p for p in store.run_dir.rglob("*") if p.is_file() and p.name != ".lock"]
    assert any(p.suffix == ".sqlite" for p in files)
    for path in files:
        content = path.read_bytes()
        for place in {0, len(content) // 2, len(content) - 1}:
            flipped = bytearray(content)
            flipped[place] ^= 1
            path.write_bytes(flipped)
            with pytest.raises(EvidenceError):
                EvidenceStore.existing(store.run_dir).check()
        path.write_bytes(content)
    EvidenceStore.existing(store.run_dir).check()


def test_finds_missing_unlisted_and_reordered_pieces(store: EvidenceStore) -> None:
    extra = store.directory / "extra.json"
    extra.write_text("{}")
    with pytest.raises(EvidenceError, match="not in the chain"):
        store.check()
    extra.unlink()
    chain = store.directory / CHAIN
    lines = chain.read_text().splitlines(keepends=True)
    chain.write_text("".join([lines[0], lines[2], lines[1]]))
    with pytest.raises(EvidenceError, match="line 2"):
        store.check()
    chain.write_text("".join(lines))
    (store.directory / "scores.npz").unlink()
    with pytest.raises(EvidenceError, match="cannot be read"):
        store.check()


def test_finds_a_chain_written_anew_in_another_spelling(store: EvidenceStore) -> None:
    chain = store.directory / CHAIN
    spelt = [json.dumps(json.loads(line)) for line in chain.read_text().splitlines()]
    chain.write_text("\n".join(spelt) + "\n")
    with pytest.raises(EvidenceError, match="line 1"):
        store.check()


def test_a_deleted_ledger_is_found(store: EvidenceStore) -> None:
    next(iter((store.run_dir / "ledgers").iterdir())).unlink()
    with pytest.raises(EvidenceError, match="missing"):
        store.check_run()


def test_a_new_audit_names_the_ones_before_it(store: EvidenceStore) -> None:
    second = EvidenceStore.anew(store.run_dir)
    assert second.earlier == [store.head]
    assert second.names() == []
    second.put_json("other", 1)
    third = EvidenceStore.anew(store.run_dir)
    assert third.earlier == [store.head, second.head]
    # An empty chain told nothing, so there is nothing to name.
    assert EvidenceStore.anew(store.run_dir).earlier == third.earlier


def test_says_what_is_wrong_with_a_foreign_folder(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="not a run folder"):
        EvidenceStore(tmp_path)
    with pytest.raises(EvidenceError, match="there is no evidence"):
        EvidenceStore.existing(tmp_path)
