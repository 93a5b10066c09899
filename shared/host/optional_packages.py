"""Packages that only some installations have, and how to get them.

A device needs neither data sets from elsewhere nor plots. What is not in the base installation is
imported where it is used, after `require` has seen that it is there.
"""

from __future__ import annotations

from importlib.util import find_spec

from calyx.shared.errors import UsageError


def require(package: str, extra: str, purpose: str) -> None:
    """See that an optional package is installed.

    Args:
        package: the module to be imported.
        extra: the extra of ``calyx-fl`` that it belongs to.
        purpose: what is asking for it, in words.

    Raises:
        UsageError: it is not; the message names the extra.
    """
    if find_spec(package) is None:
        raise UsageError(
            f"{purpose} needs {package}, which is not installed",
            hint=f"install it with: pip install 'calyx-fl[{extra}]'",
        )
