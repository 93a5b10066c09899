"""Text in its layouts, and vocabularies that are public."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calyx.shared.data.sources.text import TextColumns, layout_of, read_text
from calyx.shared.data.sources.vocabulary import Characters, HashedWords, ListedWords, words_of
from calyx.shared.errors import DataError

WORDS = HashedWords(1000)
LINES = "good\tA fine film .\nbad\tdull , very dull\ngood\tfine\nbad\tdull\n"
ROLES = "ANNA:\nWho is there?\n\nBERT:\nI.\nMe.\n\nANNA:\nOh.\n"


def test_lines_with_a_label(write: Callable[..., Path]) -> None:
    place = write("set.txt", LINES)
    assert layout_of(str(place)) == "lines"
    found = read_text(str(place), "lines", WORDS, 4)
    assert found.features.dtype == np.int64 and found.features.shape == (4, 4)
    assert found.labels.tolist() == [1, 0, 1, 0] and found.class_names == ("bad", "good")
    assert found.features[2].tolist() == [*WORDS.tokens("FINE"), 0, 0, 0]
    assert found.done[1] == "4 tokens a record; 0 of 4 are longer and were cut"


def test_a_csv_file_with_clients(write) -> None:
    rows = 'text,label,who\n"one, two",a,x\nthree,b,y\nfour,a,x\nfive,b,y\n'
    columns = TextColumns(client="who")
    found = read_text(str(write("set.csv", rows)), "csv", WORDS, 3, columns=columns)
    assert found.natural_ids.tolist() == ["x", "y", "x", "y"]
    assert (found.features[0] > 0).all()


def test_a_file_a_class(write) -> None:
    folder = write("set/film.pos", "good\nfine\n").parent
    write("set/film.neg", "bad\n\ndull\n")
    write("set/README.txt", "no data")
    assert layout_of(str(folder)) == "class_files"
    found = read_text(str(folder), "class_files", WORDS, 2)
    assert found.class_names == ("neg", "pos") and found.labels.tolist() == [0, 0, 1, 1]


def test_what_a_role_says_is_joined_and_cut_without_overlap(write) -> None:
    place = write("play.txt", ROLES)
    assert layout_of(str(place)) == "roles"
    alphabet = Characters()
    found = read_text(str(place), "roles", alphabet, 8)
    assert found.labels is None
    assert found.natural_ids.tolist() == ["ANNA"] * 3 + ["BERT"]
    spoken = alphabet.tokens("Who is there?\nOh.")
    assert found.features[:3].ravel().tolist() == spoken + [0] * (24 - len(spoken))
    assert found.features[3].tolist() == [*alphabet.tokens("I.\nMe."), 0, 0]


@pytest.mark.parametrize(
    ("name", "content", "layout", "message"),
    [
        ("set.txt", "", "lines", r"set\.txt is empty"),
        ("set.txt", LINES + "no tab\n", "lines", r"set\.txt, line 5 is not LABEL, a tab"),
        ("set.txt", LINES.encode() + b"bad\t\xff\n", "lines", r"set\.txt, line 5: byte 0xff"),
        ("set.txt", LINES + "sad\tonce\n", "lines", r"set\.txt, line 5: label 'sad' occurs once"),
        ("set.csv", "text,sort\na,b\n", "csv", r"there is no column label"),
        ("set.csv", "text,label\n,b\n", "csv", r"set\.csv, line 2: text is empty"),
        (
            "set.txt",
            ROLES + "\nno role\n",
            "roles",
            r"set\.txt, line 11: a block does not begin with",
        ),
        ("set.txt", "ANNA:\n\nBERT:\n", "roles", r"roles that say nothing"),
        (
            "a/film.pos",
            "one file\n",
            "class_files",
            r"differ .*\nhint: give a folder with one file for each class",
        ),
    ],
)
def test_bad_text_is_refused_by_file_and_line(write, name, content, layout, message) -> None:
    with pytest.raises(DataError, match=message):
        read_text(str(write(name, content)), layout, WORDS, 4)


def test_a_hash_is_the_same_in_every_process() -> None:
    program = (
        "from calyx.shared.data.sources.vocabulary import HashedWords; "
        "print(HashedWords(1000).tokens('Fine film'))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert shown == {"[442, 532]"}
    assert max(WORDS.tokens(" ".join(map(str, range(5000))))) < WORDS.size == 1001


def test_a_list_and_an_alphabet_have_one_token_for_what_is_not_in_them() -> None:
    words = ListedWords(["good", "bad"])
    assert words.tokens("Bad ugly good") == [3, 1, 2] and words.size == 4
    assert Characters("ab").tokens("abä") == [2, 3, 1]
    # One letter, written in two ways.
    assert words_of("Cafe\u0301") == words_of("caf\u00e9")
    with pytest.raises(DataError, match="twice"):
        ListedWords(["good", "good"])
    with pytest.raises(DataError, match="not one word in small letters"):
        ListedWords(["two words"])


def test_the_real_sets(data_folder: Path) -> None:
    films = read_text(str(data_folder / "rt-polarity"), "class_files", HashedWords(4096), 60)
    assert np.bincount(films.labels).tolist() == [5331, 5331]
    plays = str(data_folder / "tiny-shakespeare" / "input.txt")
    assert layout_of(plays) == "roles"
    assert len(set(read_text(plays, "roles", Characters(), 80).natural_ids)) == 299
