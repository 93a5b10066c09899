"""What is public about one record's input: names, shapes, types and ranges, and no value.

    RecordSpec.floats((1, 28, 28))                                   one image
    RecordSpec.tokens((40,), values=5000)                            a sentence, 0 fills it up
    RecordSpec.of(tokens=Tokens((40,), 5000), length=Length("tokens"))

A model of one input is called ``model(x)``, a model of several ``model(**inputs)``. Shapes are
fixed: a sequence is filled up to the longest that is allowed, not to the longest of its batch,
since a record's gradient must not depend on how long its neighbours are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from calyx.shared.errors import DataError


@dataclass(frozen=True)
class Floats:
    """float32 values of this shape; its first axis is the steps, where a `Length` counts them."""

    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"float32 {self.shape}"


@dataclass(frozen=True)
class Tokens:
    """int64 numbers in [0, values) of this shape; 0 is padding, and follows the last real step."""

    shape: tuple[int, ...]
    values: int

    def __str__(self) -> str:
        return f"int64 {self.shape} below {self.values}"


@dataclass(frozen=True)
class Length:
    """How many steps of the input `of` are real, int64 (), from 1 to its longest."""

    of: str

    def __str__(self) -> str:
        return f"length of {self.of}"


@dataclass(frozen=True)
class Mask:
    """Which steps of the input `of` are real, bool (steps,)."""

    of: str

    def __str__(self) -> str:
        return f"mask of {self.of}"


Input = Floats | Tokens | Length | Mask


@dataclass(frozen=True)
class RecordSpec:
    """The inputs of one record, by name, without the batch dimension.

    Attributes:
        inputs: name and input, in the order in which they are drawn.

    Raises:
        DataError: no input, two of one name or one that is no Python name, an empty shape, a
            vocabulary of fewer than two values, or a length or mask of what has no steps.
    """

    inputs: tuple[tuple[str, Input], ...]

    @classmethod
    def floats(cls, shape: tuple[int, ...]) -> RecordSpec:
        """One input of float32 values."""
        return cls((("x", Floats(tuple(shape))),))

    @classmethod
    def tokens(cls, shape: tuple[int, ...], values: int) -> RecordSpec:
        """One input of tokens."""
        return cls((("x", Tokens(tuple(shape), values)),))

    @classmethod
    def of(cls, **inputs: Input) -> RecordSpec:
        """Several inputs, by the names of the model's arguments."""
        return cls(tuple(inputs.items()))

    def __post_init__(self) -> None:
        if not self.inputs:
            raise DataError("a record has no input", hint="give at least one")
        if len(self._by_name) != len(self.inputs):
            raise DataError(
                "two inputs of a record have the same name", hint="give each a name of its own"
            )
        for name, given in self.inputs:
            if not name.isidentifier():
                raise DataError(
                    f"input {name!r} of a record: its name is not a Python name",
                    hint="use letters, digits and underscores",
                )
            if isinstance(given, Length | Mask):
                self._check_steps(name, given)
            elif any(size < 1 for size in given.shape):
                raise DataError(
                    f"input {name} of a record has shape {given.shape}, so there are no values",
                    hint="use sizes of at least 1",
                )
            if isinstance(given, Tokens) and given.values < 2:
                raise DataError(
                    f"input {name} of a record has {given.values} values, and 0 is padding",
                    hint="allow at least two values",
                )

    def _check_steps(self, name: str, given: Length | Mask) -> None:
        counted = self._by_name.get(given.of)
        if not isinstance(counted, Floats | Tokens) or not counted.shape:
            raise DataError(
                f"input {name} of a record is the {given}, which is not an input with steps",
                hint="name an input of floats or tokens that has steps",
            )

    @cached_property
    def _by_name(self) -> dict[str, Input]:
        return dict(self.inputs)

    @property
    def is_single(self) -> bool:
        """Whether a model takes one tensor, ``model(x)``, and not ``model(**inputs)``."""
        return len(self.inputs) == 1

    @property
    def float_shape(self) -> tuple[int, ...] | None:
        """Shape of the one float32 input; None if there are others."""
        given = self.inputs[0][1]
        return given.shape if self.is_single and isinstance(given, Floats) else None

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of an input, without the batch dimension."""
        given = self._by_name[name]
        if isinstance(given, Length):
            return ()
        return self.shape(given.of)[:1] if isinstance(given, Mask) else given.shape

    def varies(self, name: str) -> bool:
        """Whether an input's records may have fewer real steps than its shape says."""
        given = self._by_name[name]
        if isinstance(given, Tokens):
            return bool(given.shape)
        return any(isinstance(x, Length | Mask) and x.of == name for _, x in self.inputs)

    def __str__(self) -> str:
        if self.float_shape is not None:
            return str(self.float_shape)
        return ", ".join(f"{name}: {given}" for name, given in self.inputs)
