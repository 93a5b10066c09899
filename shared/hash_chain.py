"""Chains of hashes: each entry holds the hash of the one before, so that none changes unseen.

Three things are kept so: a client's privacy ledger, the key authority's log and the evidence of an
audit. How an entry is hashed, and when it follows the one before, is decided here for all of them.
A chain has no secret: someone who may write all of it can make another. Its head, noted elsewhere,
shows what it held.

Each kind stores its entries in its own way (rows of a database, lines of a file), and names the two
fields of the chain in its own way (`ChainFormat`). That stays: a hash covers these names, and what
was stored under them has to be found intact.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

HASH = "hash"


def canonical_json(content: Any) -> bytes:
    """The one spelling of a JSON-ready value: equal values have equal bytes.

    Raises:
        ValueError: a number in it is infinite or undefined, which JSON cannot hold.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


@dataclass(frozen=True)
class ChainFormat:
    """How the entries of one kind of chain are stored.

    Attributes:
        number: field with the place of an entry in the chain.
        previous: field with the hash of the entry before.
        domain: hashed in front of each entry, so that it does not count as one of another kind.
    """

    number: str
    previous: str
    domain: bytes = b""

    def hash_of(self, entry: Mapping[str, Any]) -> str:
        """SHA-256 over all fields of an entry but ``hash``, hex.

        Raises:
            ValueError: it cannot be written as JSON.
        """
        content = {name: value for name, value in entry.items() if name != HASH}
        return hashlib.sha256(self.domain + canonical_json(content)).hexdigest()

    def fault_of(self, entry: Mapping[str, Any], number: int, previous: str) -> str:
        """Why this is not the entry that must stand at a place; empty if it is.

        Args:
            entry: all its fields, ``hash`` included.
            number: of the place.
            previous: hash of the entry before, or what the chain begins with.

        Raises:
            KeyError: a field of the chain is missing.
            ValueError: it cannot be written as JSON.
        """
        stated = entry[self.number]
        if type(stated) is not int or stated != number:
            return f"number {stated!r} is in its place"
        if entry[HASH] != self.hash_of(entry):
            return "its content does not match its hash"
        if entry[self.previous] != previous:
            return "it does not follow the entry before it"
        return ""
