"""Settings as texts and as a mapping say the same, and what is of another type is named."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
import pytest

from calyx.shared.config.load import build, from_settings, to_toml
from calyx.shared.errors import ConfigError


class Noise(StrEnum):
    NONE = "none"


class Rounds(IntEnum):
    FEW = 2


def test_a_mapping_says_what_texts_say() -> None:
    texts = ["privacy.epsilon=3", "training.device=cpu", "federation.client_evaluation=false"]
    mapping = {
        "privacy.epsilon": 3,
        "training.device": "cpu",
        "federation.client_evaluation": False,
    }
    assert from_settings(mapping) == from_settings(texts)


def test_text_in_a_mapping_is_not_read_as_a_number() -> None:
    assert from_settings({"data.hub_label": "3"}) == {"data": {"hub_label": "3"}}
    assert from_settings(["data.hub_label=3"]) == {"data": {"hub_label": 3}}


def test_numpys_numbers_and_enums_are_written_as_plain_values() -> None:
    settings = {
        "privacy.epsilon": np.float64(3),
        "federation.clients": np.int64(4),
        "privacy.noise": Noise.NONE,
        "training.rounds": Rounds.FEW,
    }
    found = from_settings(settings)
    leaves = [value for section in found.values() for value in section.values()]
    assert [type(value) for value in leaves] == [float, str, int, int]
    assert "clients = 4" in to_toml(build(found))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"seed": None}, "seed = null: must be str, int, float or bool, not NoneType"),
        ({"privacy.epsilon": [3]}, r"privacy.epsilon = \[3\]: must be .* not list"),
        ({"privacy": {"epsilon": 3}}, '(?s)not dict.*hint: write "privacy.KEY": value'),
        ({"seed": np.ones(2)}, "seed = .* not numpy.ndarray"),
        ({3: 4}, '(?s)3 = 4: not a key.*hint: write text, "privacy.epsilon"'),
        ({"": 4}, "not a key"),
        ({"privacy.epsilo": 3}, "did you mean privacy.epsilon?"),
        ([("seed", 3)], r"(?s)\('seed', 3\) = '': not a setting.*hint: write KEY=VALUE"),
        (
            "seed=3",
            r'(?s)"seed=3": a text of its own.*hint: give a list, \["key=value"\], or a mapping',
        ),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named_with_its_value(settings: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build(from_settings(settings))


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        from_settings({"seed": None, "training.rounds": [1]})  # type: ignore[dict-item]
    assert [fault.key for fault in raised.value.faults] == ["seed", "training.rounds"]
