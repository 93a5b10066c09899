"""What an authority decided, for tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from calyx.authority.local import LocalAuthority
from calyx.authority.log.events import Failed, Granted, Refused, Repeated
from calyx.authority.log.log import verify
from calyx.shared.errors import ReleaseRefused
from calyx.shared.protocol.authority.interface import Refusal

TotalOf = Callable[[Sequence[Any]], NDArray[np.int64]]


def refusal(authority: LocalAuthority, request: Any, chunks: Sequence[bytes]) -> Refusal:
    with pytest.raises(ReleaseRefused) as caught:
        authority.release(request, chunks)
    assert "\n" not in str(caught.value)
    return Refusal.of(caught.value)


def decisions(folder: Path) -> list[object]:
    kinds = (Granted, Repeated, Refused, Failed)
    entries = verify(folder / "releases.jsonl").entries
    return [entry.event for entry in entries if isinstance(entry.event, kinds)]
