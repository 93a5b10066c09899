"""What binds evidence to its run: configuration, ledgers, and every file of the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from audit.chain import AUDIT_ANEW, sha256_of
from client.ledger import Ledger
from shared.config.load import digest
from shared.errors import CalyxError, EvidenceError, LedgerError
from simulations.run_folder import RunFolder


def bound(run_dir: Path) -> dict[str, Any]:
    """The run as it is now: ``config_digest``, ``ledgers`` with their heads, ``files`` with hashes.

    Raises:
        EvidenceError: this is no run, or a part of it cannot be read.
    """
    folder = RunFolder(run_dir)
    if not folder.exists:
        raise EvidenceError(f"{run_dir} is not the folder of a run: it has no config.toml")
    try:
        config_digest = digest(folder.stored_config())
    except (CalyxError, ValueError) as error:
        raise EvidenceError(f"{folder.config_path} cannot be read: {error}") from None
    # Ledgers first: opening one rolls back what a killed process left half done.
    ledgers = {path.stem: _ledger_head(path) for path in sorted(folder.ledger_dir.glob("*.sqlite"))}
    return {"config_digest": config_digest, "ledgers": ledgers, "files": _files(folder.path)}


def check_unchanged(run_dir: Path, then: dict[str, Any]) -> None:
    """See that a run is still the one that was bound.

    Raises:
        EvidenceError: naming the first file that is not as it was.
    """
    now = bound(run_dir)
    for kind in ("files", "ledgers"):
        for name in sorted({*now[kind], *then[kind]}):
            if now[kind].get(name) != then[kind].get(name):
                what = f"ledger of {name}" if kind == "ledgers" else str(run_dir / name)
                raise EvidenceError(
                    f"{what} {_difference(then[kind].get(name), now[kind].get(name))} since "
                    f"the evidence was gathered; restore it, or {AUDIT_ANEW} {run_dir}"
                )
    if now["config_digest"] != then["config_digest"]:
        raise EvidenceError(f"the evidence is of a run with another configuration; {AUDIT_ANEW}")


def _ledger_head(path: Path) -> dict[str, Any]:
    try:
        with Ledger.read_only(path) as ledger:
            entries = ledger.verify()
            return {"head": ledger.head_hash, "entries": entries, "data": ledger.data_fingerprint}
    except LedgerError as error:
        raise EvidenceError(str(error)) from None


def _files(run_dir: Path) -> dict[str, str]:
    """Hash of every file of the run; not of the audit itself, nor of hidden or temporary ones."""
    found = {}
    for path in sorted(run_dir.rglob("*")):
        relative = path.relative_to(run_dir)
        hidden = any(part.startswith(".") for part in relative.parts)
        if relative.parts[0] != "audit" and not hidden and path.is_file():
            found[relative.as_posix()] = sha256_of(path)
    return found


def _difference(then: Any, now: Any) -> str:
    return "is missing" if now is None else "appeared" if then is None else "was altered"
