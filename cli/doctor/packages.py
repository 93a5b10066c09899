"""Which packages are installed, in which versions, and whether ours are really ours.

Another distribution, or a folder on Python's path, can have a package of the same name, and then
its code would be run.
"""

from __future__ import annotations

import base64
import hashlib
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from importlib.util import find_spec
from pathlib import Path

from calyx.cli.doctor.check import Check

DISTRIBUTION = "calyx-fl"
PACKAGE = "calyx"
# Extras whose packages are looked at too, and what they are for.
_OPTIONAL = {
    "simulation": "for simulations and the built-in data sets",
    "deploy": "for the server of a deployment",
    "ray": "for --engine ray",
}
_REINSTALL = "reinstall Calyx in an environment of its own: pip install --force-reinstall calyx-fl"


def python_check() -> Check:
    """Whether this Python is one that Calyx is made for."""
    found = sys.version.split()[0]
    try:
        wanted = distribution(DISTRIBUTION).metadata["Requires-Python"]
        from packaging.specifiers import SpecifierSet

        fits = SpecifierSet(wanted).contains(found, prereleases=True)
    except (PackageNotFoundError, ImportError):
        return Check("Python", "ok", found)
    if fits:
        return Check("Python", "ok", f"{found} ({wanted})")
    return Check("Python", "fault", f"{found}, but {wanted} is needed", f"use a Python {wanted}")


def version_checks() -> list[Check]:
    """Each package that Calyx needs: installed, and in the range it was made for."""
    try:
        installed = distribution(DISTRIBUTION)
        from packaging.requirements import Requirement
    except PackageNotFoundError:
        fix = "install it: pip install -e . in the source folder, or pip install calyx-fl"
        return [Check(DISTRIBUTION, "fault", "not installed, only its source is there", fix)]
    except ImportError:
        return [Check("packaging", "fault", "not installed", "pip install packaging")]
    checks = [Check(DISTRIBUTION, "ok", installed.version)]
    for text in installed.requires or []:
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            checks.append(_version_check(needed.name, needed.specifier, optional=""))
            continue
        for extra, purpose in _OPTIONAL.items():
            if needed.marker.evaluate({"extra": extra}) and DISTRIBUTION not in needed.name:
                check = _version_check(needed.name, needed.specifier, optional=purpose)
                checks += [check] if check.name not in {c.name for c in checks} else []
    return checks


def _version_check(name: str, wanted: object, *, optional: str) -> Check:
    from packaging.specifiers import SpecifierSet

    install = f"pip install '{name}{wanted}'"
    try:
        found = distribution(name).version
    except PackageNotFoundError:
        if optional:
            return Check(name, "note", f"not installed; only needed {optional}", install)
        return Check(name, "fault", "not installed", install)
    if SpecifierSet(str(wanted)).contains(found, prereleases=True):
        return Check(name, "ok", f"{found} ({wanted})" if str(wanted) else found)
    return Check(name, "fault", f"{found}, but {wanted} is needed", install)


def ownership_checks() -> list[Check]:
    """Whether the package that would be imported is the one that came with this command."""
    # Not resolved: in a source tree ``calyx/`` holds links to the parties' folders.
    root = Path(__file__).absolute().parents[2]
    faults = [fault] if (fault := _foreign(root)) else []
    return [*(faults or [Check("own package", "ok", f"all from {root}")]), *_shadows(root)]


def _foreign(root: Path) -> Check | None:
    spec = find_spec(PACKAGE)
    places = [] if spec is None else list(spec.submodule_search_locations or [spec.origin or ""])
    if not places:
        return Check(f"package {PACKAGE}", "fault", "not found", _REINSTALL)
    if Path(places[0]).resolve() != root.resolve():
        fix = "take that folder off PYTHONPATH, or uninstall what it belongs to"
        return Check(f"package {PACKAGE}", "fault", f"{places[0]} is not part of Calyx", fix)
    if altered := _altered():
        others = set(packages_distributions().get(PACKAGE, ())) - {DISTRIBUTION}
        owner = f"; {', '.join(sorted(others))} has a package of this name too" if others else ""
        found = f"{altered} is not the file that was installed{owner}"
        return Check(f"package {PACKAGE}", "fault", found, _REINSTALL)
    return None


def _altered() -> str | None:
    """The first installed file that differs from the installer's record."""
    try:
        recorded = distribution(DISTRIBUTION).files or []
    except PackageNotFoundError:
        return None
    for file in recorded:
        if file.parts[0] != PACKAGE or file.suffix != ".py" or file.hash is None:
            continue
        path = Path(str(file.locate()))
        digest = hashlib.new(file.hash.mode, path.read_bytes() if path.is_file() else b"").digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            return str(path)
    return None


def _shadows(root: Path) -> list[Check]:
    """A package in the working folder that ``python -m`` would take for ours."""
    here = Path.cwd() / PACKAGE
    if not (here / "__init__.py").is_file() or here.resolve() == root.resolve():
        return []
    fix = "run calyx from another folder; python -m would import this one"
    found = f"{here} has the name of Calyx's own package"
    return [Check(f"folder {PACKAGE}", "note", found, fix)]
