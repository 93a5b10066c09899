"""An entry that was altered, moved or taken from another chain is found."""

from __future__ import annotations

import math
from typing import Any

import pytest

from calyx.shared.hash_chain import ChainFormat, canonical_json

PLAIN = ChainFormat(number="index", previous="previous")
NAMED = ChainFormat(number="sequence", previous="previous_hash", domain=b"calyx/test/v1\n")


def entry(chain: ChainFormat, number: int, previous: str, **fields: Any) -> dict[str, Any]:
    content = {chain.number: number, chain.previous: previous, **fields}
    return {**content, "hash": chain.hash_of(content)}


# SHA-256, made with another program, of the bytes {"index":0,"previous":"","what":"\u00e4"}; with
# the domain in front of {"previous_hash":"","sequence":0,"what":"\u00e4"}.
PINNED = {
    PLAIN: "01aa24d7c681c100c129dd54f33a6e651058b3d570207ac47eb3fea6b38df442",
    NAMED: "dc79fbeb87db1a3244636aa5f7f435e5b9d683a4c749285d17cffff721a755e9",
}


@pytest.mark.parametrize("chain", [PLAIN, NAMED])
def test_hashes_are_pinned_since_stored_chains_have_them(chain: ChainFormat) -> None:
    assert entry(chain, 0, "", what="ä")["hash"] == PINNED[chain]


@pytest.mark.parametrize("chain", [PLAIN, NAMED])
def test_an_entry_in_its_place_has_no_fault(chain: ChainFormat) -> None:
    assert chain.fault_of(entry(chain, 3, "ab", what="x"), 3, "ab") == ""


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"what": "y"}, "does not match its hash"),
        ({"more": 1}, "does not match its hash"),
        ({"hash": "0" * 64}, "does not match its hash"),
        ({"index": 4}, "number 4 is in its place"),
        ({"index": 3.0}, "number 3.0 is in its place"),
        ({"index": "3"}, "number '3' is in its place"),
        ({"previous": "cd"}, "does not match its hash"),
    ],
)
def test_a_changed_entry_is_found(change: dict[str, Any], fault: str) -> None:
    assert fault in PLAIN.fault_of({**entry(PLAIN, 3, "ab", what="x"), **change}, 3, "ab")


def test_a_whole_entry_of_another_place_or_chain_is_found() -> None:
    assert "does not follow" in PLAIN.fault_of(entry(PLAIN, 3, "cd"), 3, "ab")
    assert "is in its place" in PLAIN.fault_of(entry(PLAIN, 2, "ab"), 3, "ab")
    foreign = ChainFormat(number="index", previous="previous", domain=b"another\n")
    assert "match its hash" in PLAIN.fault_of(entry(foreign, 3, "ab"), 3, "ab")


@pytest.mark.parametrize("name", ["index", "hash"])
def test_a_missing_field_is_an_error(name: str) -> None:
    broken = entry(PLAIN, 0, "")
    del broken[name]
    with pytest.raises(KeyError):
        PLAIN.fault_of(broken, 0, "")


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_what_json_cannot_hold_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"number": number})
