"""From text to tokens by a vocabulary that is public: it does not depend on the records.

A vocabulary made from private text tells which words occur in it. These do not: words hashed into a
fixed number of buckets (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask
Learning"), the words of a given list, or the characters of a fixed alphabet.
Token 0 is padding in all of them.
"""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config import data_settings
from calyx.shared.errors import DataError

ENGLISH = "\n " + string.digits + string.ascii_letters + string.punctuation
"""Printable ASCII with blank and line end."""

_WORD = re.compile(r"\w+|[^\w\s]")


class Vocabulary(Protocol):
    """Text to tokens, the same for everyone."""

    @property
    def size(self) -> int:
        """Tokens are below it."""

    @property
    def done(self) -> str:
        """What it does, in words."""

    def tokens(self, text: str) -> list[int]:
        """At least 1 each, in the order of the text."""


def vocabulary_of(setting: str) -> Vocabulary:
    """The vocabulary that ``data.vocabulary`` names.

    Raises:
        DataError: the list of words cannot be read or used.
    """
    kind, rest = data_settings.vocabulary(setting)
    if kind == "hashed":
        return HashedWords(int(rest))
    if kind == "characters":
        return Characters()
    path = Path(rest).expanduser()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the list of words {path} cannot be read: {error}",
            hint="name a text file with one word a line in data.vocabulary",
        ) from None
    return ListedWords([line.strip() for line in lines if line.strip()])


def words_of(text: str) -> list[str]:
    """Words and single punctuation marks, in small letters, composed (Unicode NFC)."""
    return _WORD.findall(unicodedata.normalize("NFC", text).lower())


class HashedWords:
    """Each word is the number of a bucket: BLAKE2b of its UTF-8 bytes, modulo their number.

    Args:
        buckets: how many.
    """

    def __init__(self, buckets: int) -> None:
        if buckets < 1:
            raise DataError(f"{buckets} buckets are too few", hint="use at least one")
        self._buckets = buckets
        # The same few words again and again.
        self._bucket = lru_cache(maxsize=1 << 16)(self._hashed)

    @property
    def size(self) -> int:
        """Buckets and padding."""
        return self._buckets + 1

    @property
    def done(self) -> str:
        """What it does, in words."""
        return f"words in small letters, hashed into {self._buckets:,} buckets"

    def tokens(self, text: str) -> list[int]:
        """A bucket for each word."""
        return [self._bucket(word) for word in words_of(text)]

    def _hashed(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        return 1 + int.from_bytes(digest, "big") % self._buckets


class ListedWords:
    """The words of a public list; 1 for all others.

    Args:
        words: in their order, different from each other as `words_of` writes them.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._number = {word: number for number, word in enumerate(words, 2)}
        if len(self._number) < len(words):
            raise DataError("a word is in the list twice", hint="leave one out")
        for word in words:
            if words_of(word) != [word]:
                raise DataError(
                    f"{word!r} in the list is not one word in small letters",
                    hint="correct it",
                )

    @property
    def size(self) -> int:
        """Words, the unknown one and padding."""
        return len(self._number) + 2

    @property
    def done(self) -> str:
        """What it does, in words."""
        return f"words in small letters, of a list of {len(self._number):,}; all others are one"

    def tokens(self, text: str) -> list[int]:
        """The place of each word in the list."""
        return [self._number.get(word, 1) for word in words_of(text)]


class Characters:
    """The characters of a fixed alphabet; 1 for all others.

    Args:
        alphabet: different characters, in their order.
    """

    def __init__(self, alphabet: str = ENGLISH) -> None:
        self._number = {character: number for number, character in enumerate(alphabet, 2)}
        if len(self._number) < len(alphabet):
            raise DataError("a character is in the alphabet twice", hint="leave one out")

    @property
    def size(self) -> int:
        """Characters, the unknown one and padding."""
        return len(self._number) + 2

    @property
    def done(self) -> str:
        """What it does, in words."""
        return f"characters of an alphabet of {len(self._number)}; all others are one"

    def tokens(self, text: str) -> list[int]:
        """The place of each character in the alphabet."""
        return [self._number.get(character, 1) for character in text]


def padded(tokens: Sequence[Sequence[int]], length: int) -> NDArray[np.int64]:
    """int64 (n, length): cut, or filled up with 0 at the end."""
    made = np.zeros((len(tokens), length), np.int64)
    for row, sequence in zip(made, tokens, strict=True):
        kept = sequence[:length]
        row[: len(kept)] = kept
    return made
