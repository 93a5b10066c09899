"""An enrolment request is the device's own word, whole, once, and for a while."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from calyx.shared.errors import EnrolmentError
from calyx.shared.protocol.enrolment import make_request, read_request
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys


class Keys:
    """A device's keys."""

    def __init__(self) -> None:
        self.node = ec.generate_private_key(ec.SECP384R1())
        self.signing, self.sealing = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()

    def request(self, name: str = "clinic") -> str:
        contributor = ContributorKeys.of(name, self.signing, self.sealing)
        return make_request(name, self.node, self.signing, contributor)


def test_request_is_read_as_it_was_made() -> None:
    keys = Keys()
    request = read_request(keys.request())
    assert request.name == "clinic" and request.contributor.name == "clinic"
    assert request.node_public_key.public_numbers() == keys.node.public_key().public_numbers()
    request.check_age()


def test_renewed_request_has_a_new_nonce_and_the_old_fingerprint() -> None:
    keys = Keys()
    one, two = read_request(keys.request()), read_request(keys.request())
    assert one.nonce != two.nonce and one.fingerprint == two.fingerprint
    assert read_request(Keys().request()).fingerprint != one.fingerprint


def altered(text: str, **changes: Any) -> str:
    return json.dumps({**json.loads(text), **changes})


ALTERED = {
    "name": {"name": "other"},
    "nonce": {"nonce": "0" * 32},
    "time": {"created_at": "2999-01-01T00:00:00+00:00"},
    "node signature": {"node_signature": "00" * 100},
    "contributor signature": {"contributor_signature": "00" * 64},
}


@pytest.mark.parametrize("name", ALTERED)
def test_altered_request_is_refused(name: str) -> None:
    with pytest.raises(EnrolmentError, match="was altered on its way"):
        read_request(altered(Keys().request(), **ALTERED[name]))


@pytest.mark.parametrize("part", ["node_key", "contributor"])
def test_keys_of_two_requests_cannot_be_combined(part: str) -> None:
    mine, theirs = Keys().request(), json.loads(Keys().request())
    with pytest.raises(EnrolmentError, match="was altered"):
        read_request(altered(mine, **{part: theirs[part]}))


def test_contributor_keys_alone_are_no_request() -> None:
    """They have no date, no nonce and no node key, and no one has seen their fingerprint."""
    bare = json.dumps(json.loads(Keys().request())["contributor"])
    with pytest.raises(EnrolmentError, match="not of the form calyx-enrolment-1"):
        read_request(bare)


GARBAGE = {
    "not JSON": "{",
    "a list": "[]",
    "another form": altered(Keys().request(), format="calyx-enrolment-9"),
    "a missing field": json.dumps({"format": "calyx-enrolment-1"}),
    "a field of another type": altered(Keys().request(), nonce=5),
    "a weak curve": altered(
        Keys().request(), node_key="ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY="
    ),
    "a key written in another way": altered(
        (written := Keys().request()), node_key=json.loads(written)["node_key"] + " comment"
    ),
    "a name in two scripts": Keys().request("clinic-\N{CYRILLIC SMALL LETTER A}"),
    "endless": " " * 20_000,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(EnrolmentError, match="not a usable enrolment request") as caught:
        read_request(GARBAGE[name])
    assert "\n" not in str(caught.value)


def test_old_request_is_refused() -> None:
    request = read_request(Keys().request())
    request.check_age(datetime.now(UTC) + timedelta(days=13))
    for moment in (timedelta(days=15), timedelta(days=-1)):
        with pytest.raises(EnrolmentError, match="make a new one on that device"):
            request.check_age(datetime.now(UTC) + moment)
