"""Files that are a record each: their label, client and part, from their paths.

Without ``data.name_pattern`` a file's folder is its label. A set has a test set of its own if
``data.test_names`` says so, or if everything lies in folders ``train`` and ``test``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.config.schema import DataConfig
from calyx.shared.data.sources.files import SourceFile
from calyx.shared.data.sources.name_pattern import NamePattern, is_named
from calyx.shared.data.sources.source_records import shortened
from calyx.shared.errors import DataError

_PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}


@dataclass(frozen=True)
class Named:
    """Files with what their paths say.

    Attributes:
        files: those that count.
        labels: one for each; empty words if none was asked for.
        clients: str (n,), or None if paths do not say.
        is_test: bool (n,), or None if the set has no test set of its own.
        warnings: what was left out.
    """

    files: tuple[SourceFile, ...]
    labels: tuple[str, ...]
    clients: NDArray[Any] | None
    is_test: NDArray[np.bool_] | None
    warnings: tuple[str, ...] = ()


def named_files(
    files: Sequence[SourceFile], config: DataConfig, *, with_label: bool = True
) -> Named:
    """Read the paths.

    Args:
        files: those of the source.
        config: ``name_pattern``, ``test_names``, ``partition``.
        with_label: whether a path must say the label.

    Raises:
        DataError: a pattern that fits no file or lacks a field that is needed, or a file that is in
            no class folder.
    """
    files, part_warnings = _without_validation(files, config)
    if config.name_pattern:
        kept, found, warnings = _by_pattern(files, config, with_label=with_label)
    else:
        kept, warnings = list(files), ()
        found = [{"label": _folder_label(file)} if with_label else {} for file in files]
    clients = None
    if found and "client" in found[0]:
        clients = np.array([fields["client"] for fields in found])
    elif config.partition == "natural":
        raise DataError(
            "data.partition = natural needs to know whose each file is",
            hint=(
                "name the place in data.name_pattern as {client}, as in "
                "{label}_{client}_{index}.wav"
            ),
        )
    return Named(
        files=tuple(kept),
        labels=tuple(fields.get("label", "") for fields in found),
        clients=clients,
        is_test=_test_files(kept, config),
        warnings=(*part_warnings, *warnings),
    )


def _by_pattern(
    files: Sequence[SourceFile], config: DataConfig, *, with_label: bool
) -> tuple[list[SourceFile], list[dict[str, str]], tuple[str, ...]]:
    pattern = NamePattern(config.name_pattern)
    if with_label and "label" not in pattern.names:
        raise DataError(
            f"data.name_pattern = {pattern.text} does not say which part is the label",
            hint="name that part {label}",
        )
    matched = [(file, pattern.fields(file.name)) for file in files]
    kept = [(file, fields) for file, fields in matched if fields is not None]
    if not kept:
        raise DataError(
            f"data.name_pattern = {pattern.text} fits none of {len(files):,} files, such as "
            f"{files[0].shown}",
            hint="write it as their names are",
        )
    others = [file.name for file, fields in matched if fields is None]
    warnings: tuple[str, ...] = ()
    if others:
        warnings = (
            f"{len(others):,} of {len(files):,} files do not fit data.name_pattern = "
            f"{pattern.text} and are left out: {shortened(others)}",
        )
    return [file for file, _ in kept], [fields for _, fields in kept], warnings


def _folder_label(file: SourceFile) -> str:
    folder = file.name.rpartition("/")[0].rpartition("/")[2]
    if not folder or folder.lower() in _PARTS:
        raise DataError(
            f"{file.shown} is in no folder that names its class",
            hint="put it into one, or set data.name_pattern, as in {label}_{index}.png",
        )
    return folder


def _test_files(files: Sequence[SourceFile], config: DataConfig) -> NDArray[np.bool_] | None:
    if config.test_names:
        found = np.array([is_named(file.name, config.test_names) for file in files])
        if not found.any() or found.all():
            share = "all" if found.all() else "none"
            raise DataError(
                f"data.test_names = {config.test_names} names {share} of {len(files):,} files, "
                f"such as {files[0].name}",
                hint="name those for testing and no others",
            )
        return found
    found = np.array([_part(file) == "test" for file in files])
    return found if _has_parts(files) else None


def _part(file: SourceFile) -> str:
    """``train``, ``test`` or ``validation`` where the outermost folder says so."""
    top, slash, _ = file.name.partition("/")
    return _PARTS.get(top.lower(), "") if slash else ""


def _has_parts(files: Sequence[SourceFile]) -> bool:
    return {"train", "test"} <= {_part(file) for file in files}


def _without_validation(
    files: Sequence[SourceFile], config: DataConfig
) -> tuple[Sequence[SourceFile], tuple[str, ...]]:
    if config.test_names or not _has_parts(files):
        return files, ()
    if stray := [file for file in files if not _part(file)]:
        raise DataError(
            f"{stray[0].shown} is in neither of the folders train and test",
            hint="move it into one, or name the files for testing with data.test_names",
        )
    kept = [file for file in files if _part(file) != "validation"]
    if len(kept) == len(files):
        return files, ()
    left_out = len(files) - len(kept)
    return kept, (f"{left_out:,} files of the validation set are left out: there is a test set",)
