"""From the options of ``calyx client enroll`` to where records are and how they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calyx.client.deployment.folder import DataPlace
    from calyx.shared.config import Config
    from calyx.shared.tasks.task import Task

_ARRAYS = ("npz", "idx")


@dataclass(frozen=True)
class RecordOptions:
    """What the owner said.

    Attributes:
        data: a path, or ``module:function``.
        source: how files are read; None: as they look.
        preset: of the run that the device is to take part in; None: not known.
        settings: ``key=value``.
        task: ``task.kind``; None: the preset's.
        python_path: folder of modules of his own.
    """

    data: str
    source: str | None = None
    preset: str | None = None
    settings: Sequence[str] = ()
    task: str | None = None
    python_path: Path | None = None

    def place(self) -> DataPlace:
        """Where the records are, and how they are read.

        Raises:
            ConfigError: a setting cannot be used.
            UsageError, DataError: nothing there can be read, or there is no such task.
        """
        from calyx.shared.config.load import build, merge
        from calyx.shared.config.reading_keys import reading_settings

        path = Path(self.data).expanduser()
        where = str(path.absolute()) if path.exists() else self.data
        source = self._source(where)
        if source == "python":
            return self._place(source, where, {})
        here = {"data": {"source": source, "directory": where}, "task": {"kind": self._kind()}}
        if self.preset is None:
            # Without the preset all that is said is about reading, and said in vain where it is
            # not read.
            settings = {**self._data()}
        else:
            settings = reading_settings(source, build(merge(self._nested(), here)).data)
        return self._place(source, where, settings)

    def run(self, place: DataPlace) -> Config | None:
        """The run as far as it is known, with records like these; None without a preset."""
        from calyx.shared.config.load import build, merge

        if self.preset is None:
            return None
        layers: dict[str, Any] = {"task": {"kind": place.task}}
        if place.source != "python":
            layers["data"] = {"source": place.source, "directory": place.place}
        task = self._own_task()
        if task is not None and task.model is not None:
            layers["model"] = {"name": "task"}
        if place.source == "task":
            layers["data"]["view"] = "stored"
        return build(merge(self._nested(), layers))

    def _place(self, source: str, where: str, settings: dict[str, Any]) -> DataPlace:
        from calyx.client.deployment.folder import DataPlace
        from calyx.shared.host.settings_file import made_settings

        folder = "" if self.python_path is None else str(self.python_path.expanduser().absolute())
        values = {
            "source": source,
            "place": where,
            "python_path": folder,
            "task": self._kind(),
            "settings": settings,
        }
        return made_settings(DataPlace, values)

    def _source(self, where: str) -> str:
        from calyx.shared.data.guess import source_of

        if self.source is not None:
            return self.source
        if not Path(where).exists() and ":" in self.data:
            return "python"
        task = self._own_task()
        if task is not None and task.records is not None:
            return "task"
        named = str(self._data().get("source", ""))
        seen = source_of(where)
        return named if named not in ("", "digits", "hub") and seen not in _ARRAYS else seen

    def _kind(self) -> str:
        from calyx.shared.config.schema import TaskConfig

        section = self._nested().get("task", {})
        stated = section.get("kind") if isinstance(section, dict) else None
        return self.task or str(stated or TaskConfig().kind)

    def _own_task(self) -> Task | None:
        from calyx.client.deployment.enrolment import load_own_task
        from calyx.shared.tasks.find import own_task

        kind = self._kind()
        if ":" not in kind:
            return None
        load_own_task(kind, "" if self.python_path is None else str(self.python_path.expanduser()))
        return own_task(kind)

    def _data(self) -> dict[str, Any]:
        section = self._nested().get("data", {})
        return section if isinstance(section, dict) else {}

    def _nested(self) -> dict[str, Any]:
        """Preset and settings, unchecked."""
        from calyx.shared.config.load import from_settings, merge
        from calyx.shared.errors import UsageError
        from calyx.simulations.presets import load_preset

        given = from_settings(self.settings)
        if self.preset is not None:
            return merge(load_preset(self.preset), given)
        if unread := sorted(given.keys() - {"data", "task"}):
            raise UsageError(
                f"{unread[0]} is of a run, and no run is named",
                hint="name it with --preset, or give only settings of data, as data.label=NAME",
            )
        return given
