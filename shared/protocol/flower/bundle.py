"""App bundles (FAB) of Flower."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from typing import Any


def bundle(files: Mapping[str, bytes]) -> bytes:
    """An app bundle (FAB) of these files."""
    from flwr.cli.build import build_fab_from_files

    return build_fab_from_files(files)[0]


def bundle_config(content: bytes) -> dict[str, Any]:
    """The ``pyproject.toml`` in an app bundle, which no one is asked to trust.

    Raises:
        ValueError: there is none that can be read.
    """
    from flwr.common.config import get_fab_config

    try:
        return dict(get_fab_config(content))
    except (zipfile.BadZipFile, KeyError, TypeError) as error:
        raise ValueError(f"no app bundle: {error}") from None


def bundle_hash(content: bytes) -> str:
    """The name that Flower gives a bundle."""
    return hashlib.sha256(content).hexdigest()
