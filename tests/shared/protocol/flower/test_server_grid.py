"""The grid of a deployed ServerApp looks soon for what was announced, and not for ever."""

from __future__ import annotations

import sys
from inspect import signature

import pytest
from flwr.supercore.inflatable import inflatable_utils
from flwr.superlink.grid import HttpGrid

from calyx.shared.protocol.flower.http_retry import FIRST_LOOK_S
from calyx.shared.protocol.flower.server_grid import UPLOAD_S, server_grid
from calyx.shared.protocol.message_size import SizeGuard


def test_the_pause_before_a_second_look_is_cut_where_flowers_grid_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Flower's grid names no pause, so it takes the default, which costs a second a round."""
    looked_up = sys.modules[HttpGrid.__module__].__dict__["pull_objects"]
    assert looked_up is inflatable_utils.pull_objects
    for name, flowers_own in (("initial_backoff", 1), ("max_time", 7200), ("backoff_cap", 10)):
        monkeypatch.setitem(looked_up.__kwdefaults__, name, flowers_own)
    server_grid("127.0.0.1:1", b"", "token", "secret", lambda m: None, lambda: SizeGuard(1, ""))
    defaults = {n: p.default for n, p in signature(looked_up).parameters.items()}
    assert defaults["initial_backoff"] == FIRST_LOOK_S
    assert defaults["max_time"] == UPLOAD_S
