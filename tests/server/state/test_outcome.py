"""A run that comes to nothing is ended, and not called a success."""

from __future__ import annotations

from typing import Any

import pytest

from calyx.server.state.outcome import check_effect, rounds_with_effect
from calyx.shared.errors import RoundError


def event(ok: int, *reasons: str, skipped: bool | None = None) -> dict[str, Any]:
    return {
        "event": "round",
        "ok": ok,
        "skipped": not ok if skipped is None else skipped,
        "reason": "",
        "declined": [],
        "failed": [{"client": str(i), "reason": reason} for i, reason in enumerate(reasons)],
        "rejected": [],
    }


def test_a_run_of_which_no_round_had_an_effect_is_no_success() -> None:
    skipped = event(1, "busy", skipped=True)
    assert rounds_with_effect([skipped, event(2)]) == 1
    check_effect([skipped, event(2)])
    with pytest.raises(RoundError, match="nothing was learned: .* client 0: busy"):
        check_effect([skipped, skipped])
