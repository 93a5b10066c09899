"""The sum that a key authority is asked for, on disk until its round is in a checkpoint.

The authority releases one sum a round, and answers the *same* request again (rule 5 of
`calyx.authority.release`). So the sum and its receipts are written down before it is asked: a
server that is killed between the release and the checkpoint asks for exactly the same sum again,
finishes that round, and asks nothing of any client. Without the record the round would be lost:
every client has spent its budget, and no one has the released sum.

It holds nothing that the server does not know anyway, and no update of any single client.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from calyx.server.roster import RoundRecord
from calyx.shared.encryption import SealedSum
from calyx.shared.errors import CheckpointError, ProtocolError, full_text
from calyx.shared.host.atomic_write import write_atomically
from calyx.shared.protocol.authority.interface import ReleaseRequest
from calyx.shared.protocol.sealed import ciphertext_file
from calyx.shared.protocol.sealed.receipts import Receipt

FILE_NAME = "pending-release.safetensors"


@dataclass(frozen=True)
class PendingRelease:
    """Everything needed to finish a round once its clients have answered.

    Attributes:
        config_digest: of the run.
        run: its identifier.
        record: which clients were asked, and what came of it.
        receipts: of the uploads that were added.
        total: their sum.
        weight: the contributors' records, in units of the plan's.
    """

    config_digest: str
    run: str
    record: RoundRecord
    receipts: tuple[Receipt, ...]
    total: SealedSum
    weight: float

    @property
    def request(self) -> ReleaseRequest:
        """What the authority is asked; the same each time."""
        return ReleaseRequest.of(self.run, self.record.round, self.receipts, self.total)


def save_pending(run_dir: Path, pending: PendingRelease) -> None:
    """Write it durably; it replaces an earlier one."""
    total = pending.total
    fields = {
        "config_digest": pending.config_digest,
        "run": pending.run,
        "record": asdict(pending.record),
        "receipts": [receipt.to_json() for receipt in pending.receipts],
        "parameters": total.parameters,
        "context": total.context,
        "contributors": total.contributors,
        "digest": total.digest,
        "weight": pending.weight,
    }
    write_atomically(run_dir / FILE_NAME, ciphertext_file.to_bytes(total.chunks, fields))


def load_pending(
    run_dir: Path, config_digest: str, server_round: int, context: str
) -> PendingRelease | None:
    """What a killed server left of this round; None if there is nothing of use.

    Args:
        run_dir: the run folder.
        config_digest: of the run.
        server_round: the round after the last checkpoint.
        context: hash of the run's public key. A simulation has a new authority each time it is
            resumed; no one can open what was sealed for the old one.

    Raises:
        CheckpointError: it cannot be read, or belongs to another run.
    """
    path = run_dir / FILE_NAME
    try:
        chunks, fields = ciphertext_file.read(path)
        total = SealedSum(
            chunks, fields["parameters"], fields["context"], int(fields["contributors"])
        )
        pending = PendingRelease(
            config_digest=fields["config_digest"],
            run=fields["run"],
            record=RoundRecord.from_json(fields["record"]),
            receipts=tuple(Receipt.from_json(text) for text in fields["receipts"]),
            total=total,
            weight=float(fields["weight"]),
        )
        is_whole = total.digest == fields["digest"]
    except FileNotFoundError:
        return None
    except (ProtocolError, KeyError, TypeError, ValueError) as error:
        raise _unusable(path, full_text(error)) from None
    if not is_whole or pending.config_digest != config_digest:
        raise _unusable(path, "it was altered or belongs to another run")
    # An older one was used: the server was killed after the checkpoint.
    is_due = pending.record.round == server_round and total.context == context
    return pending if is_due else None


def discard_pending(run_dir: Path) -> None:
    """Forget it, after the checkpoint of its round."""
    (run_dir / FILE_NAME).unlink(missing_ok=True)


def _unusable(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{path} cannot be used ({reason})", hint="delete it to repeat the round with all clients"
    )
