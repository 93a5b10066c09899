"""What binds evidence to its run: configuration, ledgers, and every file of the run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from calyx.audit.evidence.hash_chain import AUDIT_AGAIN, sha256_of
from calyx.client.ledger.ledger import Ledger
from calyx.shared.config.load import digest
from calyx.shared.errors import CalyxError, EvidenceError, LedgerError, hint_of
from calyx.shared.host.regular_file import files_below
from calyx.simulations.run_folder import RunFolder


def bound(run_dir: Path) -> dict[str, Any]:
    """The run as it is now: ``config_digest``, ``ledgers`` with their heads, ``files`` with hashes.

    Raises:
        EvidenceError: this is no run, or a part of it cannot be read.
    """
    folder = RunFolder(run_dir)
    if not folder.exists:
        raise EvidenceError(
            f"{run_dir} is not a run folder: it has no config.toml",
            hint="name the folder that calyx simulate shows at its end",
        )
    try:
        config_digest = digest(folder.stored_config())
    except (OSError, CalyxError, ValueError) as error:
        raise EvidenceError(
            f"{folder.config_path} cannot be read: {error}",
            hint=hint_of(error),
        ) from None
    files = _files(folder.path)
    paths = [folder.path / name for name in files]
    ledgers = {
        path.stem: _ledger_head(path, folder.path)
        for path in paths
        if path.parent == folder.ledger_dir and path.suffix == ".sqlite"
    }
    return {"config_digest": config_digest, "ledgers": ledgers, "files": files}


def check_unchanged(run_dir: Path, then: dict[str, Any]) -> None:
    """Check that a run is still the one that was bound.

    Raises:
        EvidenceError: naming the first file that is not as it was.
    """
    now = bound(run_dir)
    for kind in ("files", "ledgers"):
        for name in sorted({*now[kind], *then[kind]}):
            if now[kind].get(name) != then[kind].get(name):
                what = f"ledger of {name}" if kind == "ledgers" else str(run_dir / name)
                raise EvidenceError(
                    f"{what} {_difference(then[kind].get(name), now[kind].get(name))} since the "
                    "evidence was gathered",
                    hint=f"restore it, or {AUDIT_AGAIN} {run_dir}",
                )
    if now["config_digest"] != then["config_digest"]:
        raise EvidenceError(
            "the evidence belongs to a run with another configuration",
            hint=AUDIT_AGAIN,
        )


def _ledger_head(path: Path, run_dir: Path) -> dict[str, Any]:
    try:
        with Ledger.inspect(path, run_dir) as ledger:
            entries = ledger.verify()
            return {"head": ledger.head_hash, "entries": entries, "data": ledger.data_fingerprint}
    except LedgerError as error:
        raise EvidenceError(str(error), hint=error.hint) from None


def _files(run_dir: Path) -> dict[str, str]:
    """Hash of every file of the run; not of the audit itself, nor of hidden or temporary ones."""
    try:
        return {
            path.relative_to(run_dir).as_posix(): sha256_of(path, run_dir)
            for path in files_below(run_dir)
            if path.relative_to(run_dir).parts[0] != "audit"
        }
    except OSError as error:
        raise EvidenceError(
            f"the run folder {run_dir} cannot be read: {error}",
            hint="restore it from a copy",
        ) from None


def _difference(then: Any, now: Any) -> str:
    return "is missing" if now is None else "appeared" if then is None else "was altered"
