from __future__ import annotations

import pytest
import torch

from calyx.shared.errors import DataError
from calyx.shared.models.inputs import made_up
from calyx.shared.record_spec import Floats, Length, Mask, RecordSpec, Tokens
from calyx.shared.target import Classes

TWO = Classes(2)
TEXT = RecordSpec.of(
    TWO, tokens=Tokens((6,), 9), length=Length("tokens"), real=Mask("tokens"), rest=Floats((2, 3))
)


def test_records_of_one_tensor_are_drawn_as_ever() -> None:
    found = made_up(RecordSpec.floats((2, 3), TWO), 4, torch.Generator().manual_seed(5))
    expected = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(5))
    assert isinstance(found, torch.Tensor)
    assert torch.equal(found, expected)


def test_made_up_records_keep_to_the_spec() -> None:
    found = made_up(TEXT, 50, torch.Generator().manual_seed(0))
    assert isinstance(found, dict)
    assert list(found) == ["tokens", "length", "real", "rest"]
    lengths, tokens = found["length"], found["tokens"]
    assert lengths[:2].tolist() == [6, 1]
    assert set(lengths.tolist()) == {1, 2, 3, 4, 5, 6}
    assert torch.equal(found["real"].sum(dim=1), lengths)
    assert torch.equal(tokens > 0, found["real"])
    assert int(tokens.max()) == 8
    assert {x.dtype for x in found.values()} == {torch.int64, torch.bool, torch.float32}
    assert all(x.shape == (50, *TEXT.shape(name)) for name, x in found.items())


def test_a_spec_can_be_compared_and_says_what_it_is() -> None:
    assert hash(TEXT) == hash(RecordSpec(TEXT.inputs, Classes(2)))
    assert RecordSpec.floats((1, 8, 8), TWO).float_shape == (1, 8, 8)
    assert RecordSpec.tokens((6,), 9, TWO).float_shape is None
    assert str(RecordSpec.floats((1, 8, 8), TWO)) == "(1, 8, 8)"
    assert str(RecordSpec.tokens((6,), 9, TWO)) == "x: int64 (6,) below 9"
    assert "length: length of tokens" in str(TEXT)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((), "no input"),
        ((("x", Floats((2,))), ("x", Floats((2,)))), "same name"),
        ((("not a name", Floats((2,))),), "Python name"),
        ((("x", Floats((2, 0))),), "no values"),
        ((("x", Tokens((2,), 1)),), "at least two"),
        ((("x", Floats((2,))), ("n", Length("y"))), "not an input with steps"),
        ((("x", Floats(())), ("n", Mask("x"))), "not an input with steps"),
        ((("x", Floats((2,))), ("n", Length("x")), ("m", Mask("n"))), "not an input with steps"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(inputs: tuple[tuple[str, Floats]], words: str) -> None:
    with pytest.raises(DataError, match=words):
        RecordSpec(inputs, TWO)
