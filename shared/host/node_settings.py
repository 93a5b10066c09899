"""Settings of one machine: Flower's ``node_config``, given where a node is started, never sent.

Each party that reads some has one table of them beside its reader (`calyx.client.node`,
`calyx.server.run_settings`); ARCHITECTURE.md shows both. A name that is in no table is refused, so
that a misspelt setting is not taken for one that was left out, and a reader cannot ask for a name
that its table does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from calyx.shared.errors import ConfigError, Fault

Scalar = str | int | float | bool


@dataclass(frozen=True)
class NodeSetting:
    """One setting.

    Attributes:
        name: key in ``node_config``.
        on: the machines that have it.
        meaning: one sentence, for the table.
    """

    name: str
    on: str
    meaning: str


class NodeSettings:
    """A machine's own settings, read by the names of one table.

    Args:
        given: Flower's ``node_config``.
        known: every setting that this party reads.

    Raises:
        ConfigError: naming every setting that is not known.
    """

    def __init__(self, given: Mapping[str, Scalar], known: Sequence[NodeSetting]) -> None:
        self._given, self._names = given, [setting.name for setting in known]
        faults = [Fault(name, str(given[name]), self._nearest(name)) for name in self._unknown()]
        if faults:
            raise ConfigError("this machine's node settings are not valid", faults)

    def _unknown(self) -> list[str]:
        return sorted(self._given.keys() - set(self._names))

    def _nearest(self, name: str) -> str:
        close = get_close_matches(name, self._names, n=1)
        return f"no such setting; did you mean {close[0]}?" if close else "no such setting"

    def has(self, name: str) -> bool:
        """Whether the setting was given."""
        if name not in self._names:
            raise KeyError(f"{name} is not in the table of node settings")
        return name in self._given

    def text(self, name: str, default: str = "") -> str:
        """A setting as text, `default` where it was not given."""
        return str(self._given[name]) if self.has(name) else default

    def number(self, name: str) -> int | None:
        """A setting as a whole number, None where it was not given."""
        return int(self._given[name]) if self.has(name) else None
