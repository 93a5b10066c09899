"""What a device may be called, and which names people would take for each other.

Operators approve devices by name, and runs, reports and rosters show names. A name is therefore
one that can be read out, and no two of one roster look the same:

* its letters are of one script (with the marks of that script), beside them only the digits 0 to 9
  and ``- _ .`` and spaces; it begins and ends with a letter or a digit, and is as Unicode's NFKC
  writes it. So no Cyrillic *а* among Latin letters, no full-width or mathematical letters, nothing
  that is invisible;
* two names are alike if they differ only by capitals, by separators or accents, or by characters
  that fonts draw alike (`_DRAWN_ALIKE`): ``clinic-0`` and ``clinic-O``, ``site-1`` and ``site-l``,
  and *АРЕХ* in Cyrillic and in Latin letters. Two that are written from right to left, also if
  they only have the same words and numbers in another order: a terminal shows the digits of such
  a name in an order that depends on what stands around them.

The scripts are those that Unicode recommends for identifiers (UAX 31, table 5), because others have
letters that cannot be told from Latin ones. The table is a small part of Unicode's list of
confusables (UTS 39): what matters between these scripts. It does not stop ``clinic-aa`` beside
``clinic-a``; against that, and for whose device it is, there is the fingerprint.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from calyx.shared.errors import ProtocolError
from calyx.shared.protocol.signatures.signed import check_name

_SCRIPTS = set(
    re.findall(
        r"\w+",
        "ARABIC ARMENIAN BENGALI BOPOMOFO CJK CYRILLIC DEVANAGARI ETHIOPIC GEORGIAN GREEK GUJARATI "
        "GURMUKHI HANGUL HEBREW HIRAGANA KANNADA KATAKANA KHMER LAO LATIN MALAYALAM MYANMAR ORIYA "
        "SINHALA TAMIL TELUGU THAANA THAI TIBETAN",
    )
)
# Japanese is written in three at once, and its prolonged sound mark is named after two of them.
_JAPANESE = {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}
_SEPARATORS = "-_. "
# Latin letters of written languages. Those beyond are of phonetics: clicks that are drawn as
# l and !, a one-storey a, small capitals.
_LATIN = re.compile("[A-Za-z\u00c0-\u017f\u1e00-\u1eff]")

_DRAWN_ALIKE = str.maketrans(
    # ASCII and Latin, then Cyrillic, Greek, Armenian; capitals before small letters.
    "0I1ØøŁłĐđĦħıАВЕЅІЈКМНОРСТУХҮԚԜӀЗЬаеѕіјкорсухүԛԝԁһӏгпзьбтΑΒΕΖΗΙΚΜΝΟΡΤΥΧαγηικνορτυχωϲօոսհց",
    "ollOoLlDdHhiABESlJKMHOPCTYXYQWl3baesijkopcyxyqwdhlrn3b6tABEZHlKMNOPTYXaynikvoptuxwconuhg",
) | str.maketrans(
    # Kana and the ideographs that they come from or look like; katakana and hiragana.
    "エニカハロトタチオーミヘリ",
    "工二力八口卜夕千才一三へり",
)
# Letters by Unicode's book that nothing is drawn for, and the stroke that only makes a word longer.
_NOT_DRAWN = "\u115f\u1160\u17b4\u17b5\u0640"
_DRAWN_ALIKE_PAIRS = (("rn", "m"), ("vv", "w"))


def check_device_name(name: str) -> None:
    """Refuse a name that people cannot read out or tell from another.

    Raises:
        ProtocolError: it is not of the form above; says why.
    """
    check_name("device", name)
    if fault := _fault(name):
        raise ProtocolError(
            f"{name!r} cannot be the name of a device: {fault}",
            hint="choose another name, of plain letters",
        )


def find_alike(name: str, others: Iterable[str]) -> str | None:
    """The first of `others` that people would take for `name`, which is not `name` itself."""
    own = _skeletons(name)
    return next((other for other in others if other != name and own & _skeletons(other)), None)


def _fault(name: str) -> str:
    if unicodedata.normalize("NFKC", name) != name:
        return "it has characters that Unicode also writes in another way"
    scripts = set()
    for character in name:
        if character in _SEPARATORS or character in "0123456789":
            continue
        if unicodedata.category(character)[0] not in "LM" or character in _NOT_DRAWN:
            shown = character if character not in _NOT_DRAWN else f"U+{ord(character):04X}"
            return f"{shown!r} is neither a letter, a digit nor one of {_SEPARATORS!r}"
        script = unicodedata.name(character, "").split(" ")[0]
        is_known = script in _SCRIPTS or script in _JAPANESE
        if not is_known or (script == "LATIN" and not _LATIN.match(character)):
            return f"{character!r} (U+{ord(character):04X}) is not of a script in common use"
        scripts.add(script)
    if len(scripts) > 1 and not scripts <= _JAPANESE:
        return f"it mixes letters that look alike, of the scripts {', '.join(sorted(scripts))}"
    if name[0] in _SEPARATORS or name[-1] in _SEPARATORS:
        return "it must begin and end with a letter or a digit"
    return ""


def _skeletons(name: str) -> frozenset[str]:
    """Texts of a name, without case and as it is drawn; names that are alike share one."""
    bare = "".join(
        c
        for c in unicodedata.normalize("NFD", name)
        if not unicodedata.name(c, "").startswith("COMBINING ")
    )
    drawn = bare.translate(_DRAWN_ALIKE).casefold()
    for pair, one in _DRAWN_ALIKE_PAIRS:
        drawn = drawn.replace(pair, one)
    texts = [re.sub("[-_. ]+", "-", text) for text in (bare.casefold(), drawn)]
    if any(unicodedata.bidirectional(c) in ("R", "AL") for c in name):
        texts = ["-".join(sorted(re.findall(r"\d+|[^\d-]+", text))) for text in texts]
    return frozenset(texts)
