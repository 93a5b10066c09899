"""Names of devices: readable, in one script, and none that looks like another."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.names import check_device_name, find_alike

ALLOWED = [
    "clinic-a",
    "0",
    "fl-7.example.org",
    "Klinik Köln",
    "Čakovec_2",
    "больница-3",
    "Νοσοκομείο 1",
    "東京ラーメン",
    "दिल्ली",
    "서울",
    "מרפאה-12",
    "x" * 100,
]


@pytest.mark.parametrize("name", ALLOWED)
def test_names_of_one_script_are_allowed(name: str) -> None:
    check_device_name(name)


REFUSED = {
    "nothing": ("", "1 to 100 printable"),
    "too long": ("x" * 101, "1 to 100 printable"),
    "a line break": ("a\nb", "printable"),
    "something invisible": ("a\N{ZERO WIDTH SPACE}b", "printable"),
    "a letter that is not drawn": ("가\N{HANGUL JUNGSEONG FILLER}", "U\\+1160"),
    "a vowel that is not drawn": ("ក\N{KHMER VOWEL INHERENT AQ}", "U\\+17B4"),
    "a stroke that makes it longer": ("\N{ARABIC LETTER BEH}\N{ARABIC TATWEEL}ب", "U\\+0640"),
    "a change of direction": ("a\N{RIGHT-TO-LEFT OVERRIDE}b", "printable"),
    "full-width letters": ("\N{FULLWIDTH LATIN SMALL LETTER A}b", "in another way"),
    "an accent of its own": ("cafe\N{COMBINING ACUTE ACCENT}", "in another way"),
    "an accent on anything": ("x\N{COMBINING LONG SOLIDUS OVERLAY}", "not of a script"),
    "Cyrillic in Latin": ("clinic-\N{CYRILLIC SMALL LETTER A}", "CYRILLIC, LATIN"),
    "Greek in Latin": ("clinic-\N{GREEK SMALL LETTER OMICRON}", "GREEK, LATIN"),
    "a click that is drawn as l": ("\N{LATIN LETTER DENTAL CLICK}ab", "not of a script"),
    "a phonetic letter": ("cl\N{LATIN SMALL LETTER ALPHA}ss", "not of a script"),
    "a script drawn as Latin": ("\N{LISU LETTER PA}", "not of a script"),
    "other digits": ("a\N{DEVANAGARI DIGIT ONE}", "neither a letter"),
    "a slash": ("a/b", "neither a letter"),
    "markup": ("[bold]a", "neither a letter"),
    "a dot at the end": ("clinic.", "begin and end"),
    "a space before it": (" clinic", "begin and end"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_names_that_can_deceive_are_refused(what: str) -> None:
    name, why = REFUSED[what]
    with pytest.raises(ProtocolError, match=why):
        check_device_name(name)


ALIKE = [
    ("clinic-a", "Clinic-A"),
    ("clinic-0", "clinic-O"),
    ("site-1", "site-l"),
    ("site-1", "site-I"),
    ("site-I", "site-l"),
    ("site-I", "site-i"),
    ("corner", "comer"),
    ("north west", "north-west"),
    ("Müller", "Muller"),
    ("Łódź", "Lodz"),
    ("АРЕХ", "APEX"),
    ("сору", "copy"),
    ("ΚΟΤ", "KOT"),
    ("エコ", "工コ"),
    ("ニュータウン", "二ュ一タウン"),
    ("へいわ", "ヘいわ"),
    # Shown alike, or in an order that depends on what stands beside them.
    (
        "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}1",
        "1\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}",
    ),
    ("\N{ARABIC LETTER AIN} 1-2", "\N{ARABIC LETTER AIN} 2 1"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_names_that_look_alike_are_found_either_way(one: str, other: str) -> None:
    assert find_alike(one, ["first", other]) == other
    assert find_alike(other, [one]) == one


def test_names_that_people_can_tell_apart_are_not_alike() -> None:
    letters = [f"clinic-{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    numbers = [f"device-{number}" for number in range(1200)]
    for names in (letters, numbers[:120], numbers[1000:1120]):
        assert not [name for name in names if find_alike(name, names)]


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
def test_what_is_allowed_is_of_one_script_and_is_not_rewritten(name: str) -> None:
    try:
        check_device_name(name)
    except ProtocolError:
        return
    assert unicodedata.normalize("NFKC", name) == name and name.isprintable()
    latin = any("a" <= c.casefold() <= "z" for c in name)
    assert not (latin and any("\u0370" <= c <= "\u058f" for c in name))
