"""Which code a party runs: version and a hash over its source.

Every client states the hash of what it really runs: an older version, or files of another
distribution that also installs a package ``calyx``, would be imported without a word.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from calyx.shared.errors import ProtocolError

CLIENT_PACKAGES = ("calyx.client", "calyx.shared")


def software_version() -> str:
    """Version of the installed distribution, or ``unknown`` when run from a bare tree."""
    try:
        return version("calyx-fl")
    except PackageNotFoundError:
        return "unknown"


@lru_cache(maxsize=8)
def code_hash(packages: tuple[str, ...] = CLIENT_PACKAGES) -> str:
    """SHA-256 over names and contents of all Python files of `packages`, as hex.

    Nothing is imported: the server can hash the client's code without being able to call it.
    """
    digest = hashlib.sha256()
    for package in packages:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise ProtocolError(
                f"package {package} is not installed",
                hint="install calyx-fl again",
            )
        root = Path(spec.submodule_search_locations[0])
        for path in sorted(root.rglob("*.py")):
            name = f"{package}/{path.relative_to(root).as_posix()}".encode()
            content = path.read_bytes()
            digest.update(len(name).to_bytes(4, "big") + name)
            digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()
