from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable

import pytest

from calyx.shared.errors import (
    CalyxError,
    ConfigError,
    DataError,
    Fault,
    ReleaseRefused,
    RunError,
    full_text,
    hint_of,
)

ERRORS: list[CalyxError] = [
    RunError("it failed", hint="try again"),
    ConfigError("no", [Fault("seed", "-1", "must be 0 or more", "use 0")]),
    ConfigError("no", [Fault("seed", "-1", "must be 0 or more")], hint="see the manual"),
    ReleaseRefused("revoked: 'a'", ["a"], hint="leave it out"),
]


def _through_a_process(error: CalyxError) -> CalyxError:
    made: CalyxError = pickle.loads(pickle.dumps(error))
    return made


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, _through_a_process])
def test_a_copy_of_an_error_keeps_message_hint_and_what_else_it_carries(
    error: CalyxError, again: Callable[[CalyxError], CalyxError]
) -> None:
    made = again(error)
    assert type(made) is type(error)
    assert (str(made), made.hint, vars(made)) == (str(error), error.hint, vars(error))


def test_the_message_is_without_the_hint_and_the_full_text_is_one_line_with_both() -> None:
    error = DataError("x is damaged", hint="restore it")
    assert (str(error), error.full_text) == ("x is damaged", "x is damaged; restore it")
    assert (full_text(error), hint_of(error)) == ("x is damaged; restore it", "restore it")
    assert DataError("x is damaged").full_text == "x is damaged"


def test_an_error_of_another_kind_is_its_text_on_one_line_and_has_no_hint() -> None:
    assert full_text(ValueError("two\n  lines")) == "two lines"
    assert hint_of(ValueError("it")) == ""


def test_the_hints_of_faults_take_the_place_of_a_general_one_and_are_said_once() -> None:
    fault = Fault("a", "1", "no such key", "did you mean b?")
    error = ConfigError("not valid", [fault, Fault("c", "2", "too large"), fault], hint="see it")
    assert error.hints == ("did you mean b?",)
    assert error.full_text == (
        "not valid; a = 1: no such key; c = 2: too large; a = 1: no such key; did you mean b?"
    )
    assert ConfigError("not valid", [Fault("c", "2", "too large")], hint="see it").hint == "see it"


def test_a_traceback_in_a_script_shows_the_hint_too() -> None:
    shown = "".join(traceback.format_exception(RunError("it failed", hint="try again")))
    assert shown.endswith("RunError: it failed\nhint: try again\n")
