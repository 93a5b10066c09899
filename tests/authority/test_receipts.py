"""Receipts, admissions and contribution tags."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.sealed.admission import Admission
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys
from calyx.shared.protocol.sealed.receipts import Receipt, fresh_nonce
from calyx.shared.protocol.sealed.tags import TagKeys, keystream, weigh
from calyx.shared.protocol.signatures.signed import canonical

SIGNING, SEALING = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()
AUTHORITY = Ed25519PrivateKey.generate()
AUTHORITY_KEY = AUTHORITY.public_key().public_bytes_raw()
CONTEXT = b"a public key"
TAG_KEYS = TagKeys(b"w" * 32, b"p" * 32)
RECEIPT = Receipt("run", 3, "device", "a" * 64, "b" * 64, fresh_nonce()).signed(SIGNING)
PRIMES = (40_961, 549_755_822_081, 2**50 - 27)  # 16, 40 and 50 bits


def admission() -> Admission:
    digests = ("a" * 64, hashlib.sha256(CONTEXT).hexdigest())
    blank = Admission("run", "device", *digests, 3, "d" * 64, "e" * 64, True)
    return blank.issue(AUTHORITY, SEALING.public_key().public_bytes_raw(), TAG_KEYS)


parts = st.lists(st.one_of(st.text(max_size=4), st.binary(max_size=4)), max_size=4)


@given(parts, parts)
def test_different_parts_never_have_the_same_canonical_bytes(
    a: list[str | bytes], b: list[str | bytes]
) -> None:
    as_bytes = [[p if isinstance(p, bytes) else p.encode() for p in x] for x in (a, b)]
    assert (canonical("d", *a) == canonical("d", *b)) == (as_bytes[0] == as_bytes[1])
    assert canonical("d", *a) != canonical("e", *a)


def test_a_receipt_survives_its_text_form_and_verifies() -> None:
    read = Receipt.from_json(RECEIPT.to_json())
    assert read == RECEIPT
    assert read.verify(SIGNING.public_key().public_bytes_raw())


@pytest.mark.parametrize(
    "change",
    [
        {"run": "other"},
        {"round": 4},
        {"contributor": "another"},
        {"parameters_digest": "c" * 64},
        {"upload_hash": "c" * 64},
        {"nonce": "0" * 32},
        {"signature": bytes(64)},
        {"signature": b""},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_receipt_with_any_field_changed_does_not_verify(change: dict[str, Any]) -> None:
    key = SIGNING.public_key().public_bytes_raw()
    assert RECEIPT.verify(key)
    assert not replace(RECEIPT, **change).verify(key)


def test_a_receipt_does_not_verify_under_another_key() -> None:
    assert not RECEIPT.verify(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    assert not RECEIPT.verify(b"not a key")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "[" * 100_000,
        "{}",
        RECEIPT.to_json().replace('"round":3', '"round":"3"'),
        RECEIPT.to_json().replace('"round":3', '"round":true'),
        RECEIPT.to_json().replace('"round":3', '"round":3.0'),
        RECEIPT.to_json().replace('"round":3', '"round":0'),
        RECEIPT.to_json().replace('"round":3', '"round":99999999999'),
        RECEIPT.to_json().replace('"run":"run"', '"run":""'),
        RECEIPT.to_json().replace('"run":"run"', '"run":"a\\nb"'),
        RECEIPT.to_json().replace('"run":"run"', f'"run":"{"x" * 101}"'),
        RECEIPT.to_json().replace("a" * 64, "A" * 64),
        RECEIPT.to_json().replace("a" * 64, "a" * 63),
        RECEIPT.to_json()[:-1] + ',"extra":1}',
        json.dumps({**json.loads(RECEIPT.to_json()), "signature": "zz"}),
        json.dumps({**json.loads(RECEIPT.to_json()), "signature": 5}),
    ],
    ids=range(18),
)
def test_malformed_receipts_are_protocol_errors_in_one_line(text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        Receipt.from_json(text)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.decode("latin-1")))
def test_no_text_makes_reading_a_receipt_fail_otherwise(text: str) -> None:
    with pytest.raises(ProtocolError):
        Receipt.from_json(text)


def test_an_enrolment_request_proves_that_its_sender_holds_the_key() -> None:
    keys = ContributorKeys.of("device", SIGNING, SEALING)
    assert ContributorKeys.from_json(keys.to_json()) == keys
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    for altered in (
        replace(keys, name="another"),
        replace(keys, seal_key=other),
        replace(keys, verify_key=stranger),
        replace(keys, signature=bytes(64)),
    ):
        with pytest.raises(ProtocolError, match="not signed by its own key"):
            ContributorKeys.from_json(altered.to_json())


def test_an_admission_gives_its_device_the_tag_keys() -> None:
    read = Admission.from_json(admission().to_json())
    assert read.open(SEALING, AUTHORITY_KEY, CONTEXT) == TAG_KEYS


@pytest.mark.parametrize(
    "change",
    [
        {"run": "other"},
        {"contributor": "another"},
        {"parameters_digest": "c" * 64},
        {"context_hash": "c" * 64},
        {"min_contributors": 2},
        {"plan_digest": "c" * 64},
        {"plan_digest": ""},
        {"config_digest": "c" * 64},
        {"is_tagged": False},
        {"sealed": b"\0" * 112},
        {"signature": bytes(64)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_altered_admission_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match="not signed by the key authority"):
        replace(admission(), **change).open(SEALING, AUTHORITY_KEY, CONTEXT)


def test_a_server_cannot_exchange_the_public_key_or_the_authority() -> None:
    with pytest.raises(ProtocolError, match="public key received"):
        admission().open(SEALING, AUTHORITY_KEY, b"the server's own public key")
    with pytest.raises(ProtocolError, match="not signed by the key authority"):
        stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        admission().open(SEALING, stranger, CONTEXT)


def test_an_admission_opens_on_its_own_device_only() -> None:
    with pytest.raises(ProtocolError, match="another device's key"):
        admission().open(X25519PrivateKey.generate(), AUTHORITY_KEY, CONTEXT)


def test_tag_keys_are_not_shown() -> None:
    assert repr(TAG_KEYS) == "TagKeys()"
    assert TAG_KEYS.weights_key.hex() not in admission().to_json()


primes = st.sampled_from(PRIMES)
tables = arrays(np.int64, (2, 5), elements=st.integers(-(2**49), 2**49))


@given(primes, tables, tables)
@settings(max_examples=50)
def test_weighing_is_linear_modulo_the_plain_modulus(
    modulus: int, a: np.ndarray, b: np.ndarray
) -> None:
    key = b"k" * 32
    together = weigh(key, (a % modulus + b % modulus) % modulus, modulus)
    apart = (weigh(key, a, modulus) + weigh(key, b, modulus)) % modulus
    assert (together == apart).all() and (together >= 0).all() and (together < modulus).all()


@pytest.mark.parametrize("modulus", PRIMES)
def test_weighing_full_chunks_is_exact_at_the_largest_values(modulus: int) -> None:
    """Against Python's integers, where nothing can wrap."""
    key, width = b"k" * 32, 4096
    stream = keystream(key, 8 * (width - 1))
    words = [stream[start : start + 8] for start in range(0, len(stream), 8)]
    weights = [int.from_bytes(word, "little") % modulus for word in words]
    for slot in (modulus - 1, -1, modulus // 2):
        row = np.full((1, width), slot, dtype=np.int64)
        assert int(weigh(key, row, modulus)[0]) == sum(w * slot for w in weights) % modulus


def test_a_modulus_that_would_wrap_is_refused() -> None:
    with pytest.raises(ProtocolError, match="50 bits"):
        weigh(b"k" * 32, np.ones((1, 3), dtype=np.int64), 2**50 + 55)


@given(primes, st.lists(tables, min_size=1, max_size=5), st.integers(1, 2**31 - 1))
@settings(max_examples=50)
def test_tags_add_up_to_weights_and_pads(modulus: int, parts: list[np.ndarray], round: int) -> None:
    keys = [TagKeys(b"w" * 32, bytes([i]) * 32) for i in range(len(parts))]
    nonces = [fresh_nonce() for _ in parts]
    tagged = [
        k.tagged(part, modulus, round, nonce)
        for k, part, nonce in zip(keys, parts, nonces, strict=True)
    ]
    marks = sum(part[:, -1] for part in parts)
    total = sum(table % modulus for table in tagged) % modulus
    due = weigh(b"w" * 32, total, modulus) + marks
    for k, nonce in zip(keys, nonces, strict=True):
        due = due + k.pads(2, modulus, round, nonce)
    assert ((total[:, -1] - due) % modulus == 0).all()
    assert (tagged[0][:, :-1] == parts[0][:, :-1]).all()


def test_pads_are_fresh_for_every_contributor_round_nonce_and_chunk() -> None:
    modulus = PRIMES[1]
    one, other = TagKeys(b"w" * 32, b"a" * 32), TagKeys(b"w" * 32, b"b" * 32)
    pads = [
        *one.pads(3, modulus, 1, "0" * 32),
        *one.pads(3, modulus, 2, "0" * 32),
        *one.pads(3, modulus, 1, "1" * 32),
        *other.pads(3, modulus, 1, "0" * 32),
    ]
    assert len({int(pad) for pad in pads}) == 12
