"""Settings of ``[data]`` that hold more than one value, as text: lists, bounds, a range, a size.

A configuration is flat (Flower's run config holds single values), so these are written as text.
Items are separated by commas; one with a comma in it stands in double quotes, as in CSV.

>>> names("age, 'x', \\"a,b\\"")
('age', "'x'", 'a,b')
>>> bounds("age=18:100, *=-20:20")
{'age': (18.0, 100.0), '*': (-20.0, 20.0)}
>>> categories("colour=red|green, size=s|m|l")
{'colour': ('red', 'green'), 'size': ('s', 'm', 'l')}
"""

from __future__ import annotations

import csv
import math
import re
from collections import Counter

# No table, sensor or list of classes has more; a longer list is a mistake.
_MOST_ITEMS = 1 << 20


def names(text: str) -> tuple[str, ...]:
    """A list of names, different from each other; empty text is an empty list.

    Raises:
        ValueError: an empty name, a name twice, or quotes that do not end.
    """
    if not text.strip():
        return ()
    try:
        (row,) = csv.reader([text], skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as error:
        raise ValueError(f"it must be names separated by commas ({error})") from None
    found = tuple(name.strip() for name in row)
    if len(found) > _MOST_ITEMS:
        raise ValueError(f"it holds more than {_MOST_ITEMS:,} names")
    if "" in found:
        raise ValueError("it must be names separated by commas, none of them empty")
    if len(set(found)) != len(found):
        twice = next(name for name, number in Counter(found).items() if number > 1)
        raise ValueError(f"{twice} is in it twice")
    return found


def class_names(text: str) -> tuple[str, ...]:
    """Names of all classes; a single whole number says how many there are, from 0 on.

    Raises:
        ValueError: as `names`, or a number of classes that is not 2 to 1,048,576.
    """
    found = names(text)
    if len(found) != 1:
        return found
    if not found[0].isdecimal() or not 2 <= int(found[0][:9]) <= _MOST_ITEMS:
        raise ValueError("it must name two classes or more, or be their number")
    return tuple(str(number) for number in range(int(found[0])))


def bounds(text: str) -> dict[str, tuple[float, float]]:
    """``COLUMN=LOW:HIGH``, separated by commas; the column ``*`` stands for all others.

    Raises:
        ValueError: another form, or a low end that is not below the high one.
    """
    return {column: _interval(value, ":") for column, value in _pairs(text, "COLUMN=LOW:HIGH")}


def categories(text: str) -> dict[str, tuple[str, ...]]:
    """``COLUMN=ONE|OTHER``, separated by commas.

    Raises:
        ValueError: another form, an empty category or one that is there twice.
    """
    found = {}
    for column, value in _pairs(text, "COLUMN=ONE|OTHER"):
        values = tuple(item.strip() for item in value.split("|"))
        if "" in values or len(set(values)) != len(values):
            raise ValueError(f"the categories of {column} must be different and not empty")
        found[column] = values
    return found


def value_range(text: str) -> tuple[float, float] | None:
    """``LOW,HIGH``; None for empty text.

    Raises:
        ValueError: another form, or a low end that is not below the high one.
    """
    return _interval(text, ",") if text.strip() else None


def image_size(text: str) -> tuple[int, int] | None:
    """``HEIGHTxWIDTH`` in pixels as (height, width); None for empty text.

    Raises:
        ValueError: another form, or a side that is not 1 to 4096.
    """
    if not text.strip():
        return None
    matched = re.fullmatch(r"\s*(\d{1,4})\s*x\s*(\d{1,4})\s*", text)
    sides = tuple(map(int, matched.groups())) if matched else (0, 0)
    if not all(1 <= side <= 4096 for side in sides):
        raise ValueError("it must be HEIGHTxWIDTH in pixels, 1 to 4096 each, for example 32x32")
    return sides[0], sides[1]


def vocabulary(text: str) -> tuple[str, str]:
    """``hashed:N``, ``characters`` or ``list:FILE``, as its kind and what follows.

    Raises:
        ValueError: another form, or a number of buckets that is not 2 to 1,048,576.
    """
    kind, _, rest = text.strip().partition(":")
    if kind == "hashed" and rest.isdecimal() and 2 <= int(rest[:9]) <= _MOST_ITEMS:
        return kind, rest
    if (kind == "characters" and not rest) or (kind == "list" and rest):
        return kind, rest
    raise ValueError("it must be hashed:N with N from 2 to 1,048,576, characters, or list:FILE")


def _pairs(text: str, form: str) -> list[tuple[str, str]]:
    pairs = []
    for item in names(text):
        column, separator, value = item.partition("=")
        if not separator or not column.strip() or not value.strip():
            raise ValueError(f"it must be {form}, separated by commas, but {item} is not")
        pairs.append((column.strip(), value.strip()))
    columns = [column for column, _ in pairs]
    if len(set(columns)) != len(columns):
        raise ValueError("a column is in it twice")
    return pairs


def _interval(text: str, separator: str) -> tuple[float, float]:
    parts = text.split(separator)
    try:
        low, high = (float(part) for part in parts)
    except ValueError:
        raise ValueError(f"it must be LOW{separator}HIGH, two numbers, but {text} is not") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"LOW must be smaller than HIGH, but in {text} it is not")
    return low, high
