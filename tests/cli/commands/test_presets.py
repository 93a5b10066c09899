from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from calyx.simulations.presets import preset_names

Calyx = Callable[..., Any]


def test_every_preset_is_listed_with_what_it_does(calyx: Calyx) -> None:
    outcome = calyx("presets", "--json")
    assert outcome.code == 0
    (line,) = outcome.out.splitlines()
    rows = {row["name"]: row for row in json.loads(line)["presets"]}
    assert sorted(rows) == preset_names()
    digits = rows["digits-cnn"]
    assert (digits["model"], digits["data"], digits["noise"]) == ("cnn", "digits", "distributed")
    assert digits["epsilon"] == 3.0
    assert not digits["needs_data_dir"]
    assert rows["fashion-cnn"]["needs_data_dir"]
    shown = calyx("presets")
    for row in rows.values():
        assert row["name"] in shown.out
        assert row["description"].split()[0] in shown.out
    assert "local noise, ε = 8 for each record" in shown.out
    assert all(character.isprintable() or character == "\n" for character in shown.out)
