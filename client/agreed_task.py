"""A task of the owner's own: the code that he agreed to runs, and a server's word runs nothing.

``policy.toml`` names a task with the SHA-256 of its code::

    tasks = ["mytask:task sha256:9f2c..."]

The file of a module is found without importing anything, not even the packages that it is in, and
compared. Only then it is run, from the very bytes that were compared: not from what is in the file
a moment later, nor from a compiled copy beside it. What the module itself imports is looked for as
ever, among the packages of this device, and is not compared.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType

from calyx.shared.config.schema import TaskConfig
from calyx.shared.errors import DataError, PolicyViolation, UsageError

_LINE = re.compile(r"(\S+)\s+sha256:([0-9a-f]{64})")
# Far more than a module has; a device or a pipe in its place would be read without end.
_LARGEST = 1 << 24
_SHOWN = 12


@dataclass(frozen=True)
class AgreedTask:
    """One task with the hash of its code.

    Attributes:
        kind: ``module:object``, as a run names it.
        sha256: hex. Of a module at the top of a folder, that of its file (``sha256sum FILE``). Of
            one in a package, SHA-256 over those of all files that its import runs, in hex, a line
            each: the packages' ``__init__.py`` from outside in, then the module.
    """

    kind: str
    sha256: str

    @classmethod
    def read(cls, line: str) -> AgreedTask:
        """Read a line of the policy.

        Raises:
            ValueError: it has another form.
        """
        found = _LINE.fullmatch(line.strip())
        # Only a module has code; a word alone names a kind that is built in.
        if found is None or ":" not in found[1] or not _is_kind(found[1]):
            raise ValueError(
                f"{line!r} must be MODULE:OBJECT sha256:HEX with 64 hexadecimal digits; calyx "
                "client enroll --task writes such a line"
            )
        return cls(found[1], found[2])

    @classmethod
    def present(cls, kind: str) -> AgreedTask:
        """The task as its files are now; none of them is run.

        Raises:
            UsageError: there is no such module that can be compared.
        """
        return cls(kind, _digest(_sources(kind)))

    def __str__(self) -> str:
        return f"{self.kind} sha256:{self.sha256}"


def disagreement(kind: str, agreed: Sequence[AgreedTask]) -> str:
    """Why the owner did not agree to the code that a task has on this device; empty if he did.

    Nothing is imported.
    """
    hashes = [task.sha256 for task in agreed if task.kind == kind]
    if not hashes:
        allowed = " or ".join(sorted({task.kind for task in agreed})) or "those built in"
        return f"task.kind = {kind} was requested, the policy allows {allowed}"
    try:
        present = AgreedTask.present(kind)
    except UsageError as error:
        return f"task.kind = {kind}: {error}"
    if present.sha256 in hashes:
        return ""
    return (
        f"task.kind = {kind}: its code has changed since the owner agreed to it: it is sha256:"
        f"{present.sha256[:_SHOWN]}, the policy allows {' or '.join(_shortened(hashes))} (calyx "
        "client join shows the line that agrees to it)"
    )


def load(kind: str, agreed: Sequence[AgreedTask]) -> None:
    """Run the code of a task that was agreed to, unless it has run already.

    Raises:
        PolicyViolation: it is not what was agreed to, or other code has its name here.
        DataError: the code fails.
    """
    try:
        sources = _sources(kind)
    except UsageError:
        sources = []
    # Of the bytes that are run, whatever was compared before.
    if not sources or AgreedTask(kind, _digest(sources)) not in agreed:
        reason = disagreement(kind, agreed) or f"the code of {kind} is being changed"
        raise PolicyViolation(
            f"the owner's policy does not allow this run; {reason}",
            hint="change the run, or ask the owner to change the policy",
        )
    for source in sources:
        present = sys.modules.get(source.name)
        if present is None:
            _run(source)
            continue
        loader = getattr(present, "__loader__", None)
        if not isinstance(loader, _AgreedCode) or loader.content != source.content:
            raise PolicyViolation(
                f"the module {source.name} is loaded here with code that was not compared",
                hint="stop the device and join again; if that does not help, rename the module",
            )


@dataclass(frozen=True)
class _Source:
    """A file that the import of a module runs."""

    name: str
    path: str
    is_package: bool
    content: bytes = field(repr=False)


class _AgreedCode(SourceFileLoader):
    """Runs the bytes that were compared."""

    def __init__(self, source: _Source) -> None:
        super().__init__(source.name, source.path)
        self.content = source.content

    def get_code(self, fullname: str) -> CodeType:
        """Compiled here and now: compiled files are neither read nor written."""
        code = self.source_to_code(self.content, self.path)
        assert isinstance(code, CodeType)
        return code


def _sources(kind: str) -> list[_Source]:
    """All files that importing the module of a task runs, from outside in."""
    if not _is_kind(kind) or ":" not in kind:
        raise UsageError(f"{kind} is not MODULE:OBJECT", hint="write it as mytask:task")
    return [_source(name, spec) for name, spec in _specs(kind.partition(":")[0])]


def _specs(module: str) -> Iterator[tuple[str, ModuleSpec]]:
    parts = module.split(".")
    if parts[0] in sys.stdlib_module_names or parts[0] == __name__.partition(".")[0]:
        raise UsageError(f"{module} is a module of Python or Calyx", hint="rename yours")
    PathFinder.invalidate_caches()
    folders: list[str] | None = None
    for number, part in enumerate(parts, 1):
        name = ".".join(parts[:number])
        spec = PathFinder.find_spec(name, folders) if part.isidentifier() else None
        if spec is None:
            raise UsageError(
                f"there is no module {name} on this device",
                hint="name its folder with --python-path, or in python_path of device.toml",
            )
        # Compiled modules, archives and folders without __init__.py have no text to compare.
        if type(spec.loader) is not SourceFileLoader:
            raise UsageError(
                f"the module {name} is not one Python file, so it cannot be compared",
                hint="use a .py file, in a package only with __init__.py",
            )
        yield name, spec
        folders = spec.submodule_search_locations
        if folders is None and number < len(parts):
            raise UsageError(f"{name} is no package", hint="correct the module's name")


def _source(name: str, spec: ModuleSpec) -> _Source:
    path = str(spec.origin)
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(opened, "rb") as file:
            is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            content = file.read(_LARGEST + 1) if is_file else b""
    except OSError as error:
        raise UsageError(
            f"the file of the module {name} cannot be read ({error.strerror})",
            hint="check who may read it",
        ) from None
    if not is_file or len(content) > _LARGEST:
        raise UsageError(f"the module {name} is no file of code", hint="use a .py file")
    return _Source(name, path, spec.submodule_search_locations is not None, content)


def _digest(sources: Sequence[_Source]) -> str:
    hashes = [hashlib.sha256(source.content).hexdigest() for source in sources]
    if len(hashes) == 1:
        return hashes[0]
    return hashlib.sha256("".join(f"{value}\n" for value in hashes).encode()).hexdigest()


def _run(source: _Source) -> None:
    loader = _AgreedCode(source)
    places = [str(Path(source.path).parent)] if source.is_package else None
    spec = importlib.util.spec_from_file_location(
        source.name, source.path, loader=loader, submodule_search_locations=places
    )
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[source.name] = module
    try:
        loader.exec_module(module)
    except Exception as error:
        del sys.modules[source.name]
        # The owner's own code may fail with anything, and its text may quote anything.
        raise DataError(
            f"the module {source.name} of the task fails: {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}",
            hint="correct it, and agree to it again in policy.toml",
        ) from error
    parent, _, own_name = source.name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], own_name, module)


def _is_kind(kind: str) -> bool:
    try:
        TaskConfig(kind=kind)
    except ValueError:
        return False
    return True


def _shortened(hashes: Sequence[str]) -> list[str]:
    return [f"sha256:{value[:_SHOWN]}" for value in hashes]
