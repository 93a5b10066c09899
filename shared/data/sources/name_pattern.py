"""What paths say about a recording: label, client and whatever else has a name in the pattern.

>>> pattern = NamePattern("{label}_{client}_{index}.wav")
>>> pattern.fields("recordings/7_jackson_32.wav")
{'label': '7', 'client': 'jackson', 'index': '32'}

A pattern is held against the last parts of a path, as many as it has itself. A field is one
character or more, never a ``/``, and never the character that follows it in the pattern; so a path
can be read in one way only. ``*`` stands for anything within one part.
"""

from __future__ import annotations

import fnmatch
import re

from calyx.shared.errors import DataError

KNOWN = ("label", "client")
_FIELD = re.compile(r"\{([a-z][a-z0-9_]*)\}")


class NamePattern:
    """A pattern with named fields.

    Args:
        text: ``data.name_pattern``.

    Raises:
        DataError: two fields side by side, a field twice, or brackets that are no field.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.names = tuple(_FIELD.findall(text))
        self._parts = text.count("/") + 1
        rest = _FIELD.sub("\0", text)
        if not text or "{" in rest or "}" in rest:
            raise DataError(
                f"data.name_pattern = {text} has brackets that are not a field",
                hint=(
                    "write fields as {label}, in small letters, as in {label}_{client}_{index}.wav"
                ),
            )
        if len(set(self.names)) != len(self.names):
            raise DataError(f"data.name_pattern = {text} names a field twice", hint="name it once")
        if re.search("\0[\0*]|\\*\0", rest):
            raise DataError(
                f"data.name_pattern = {text}: nothing separates two fields",
                hint="put something between them, as _ in {label}_{client}",
            )
        self._expression = re.compile(_expression(rest, self.names))

    def fields(self, path: str) -> dict[str, str] | None:
        """What the path says, or None if it does not fit."""
        parts = path.split("/")
        matched = self._expression.fullmatch("/".join(parts[-self._parts :]))
        return matched.groupdict() if matched and len(parts) >= self._parts else None


def _expression(rest: str, names: tuple[str, ...]) -> str:
    made, waiting = "", list(names)
    for place, character in enumerate(rest):
        if character == "\0":
            follows = rest[place + 1 : place + 2]
            kept = "/" if follows in ("", "/") else f"/{re.escape(follows)}"
            made += f"(?P<{waiting.pop(0)}>[^{kept}]+)"
        elif character == "*":
            made += "[^/]*"
        else:
            made += re.escape(character)
    return made


def is_named(path: str, globs: str) -> bool:
    """Whether a path, or its last part, is what ``data.test_names`` names."""
    return any(
        fnmatch.fnmatchcase(path, glob.strip())
        or fnmatch.fnmatchcase(path.rpartition("/")[2], glob.strip())
        for glob in globs.split(",")
        if glob.strip()
    )
