"""Making a device: its folder, its keys, its first policy, and the request that enrols it."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tomli_w
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from calyx.client.agreed_task import AgreedTask, load
from calyx.client.deployment.folder import DataPlace, Device, DeviceSettings
from calyx.client.ledger.data_registry import DataRegistry
from calyx.client.records import make_importable
from calyx.client.sealing.identity import ContributorIdentity
from calyx.shared.config import Config, data_settings
from calyx.shared.config.schema import TaskConfig
from calyx.shared.data import Dataset
from calyx.shared.errors import DataError, UsageError
from calyx.shared.host.certificates import fingerprint
from calyx.shared.host.private_files import create_private, private_directory, replace_file
from calyx.shared.host.sequence_file import SequenceFile
from calyx.shared.host.settings_file import made_settings
from calyx.shared.protocol.enrolment import EnrolmentRequest, make_request, read_request
from calyx.shared.protocol.names import check_device_name
from calyx.shared.protocol.signatures.instruction import INSTRUCTION_KEY_FILE
from calyx.shared.protocol.signatures.signed import is_hex
from calyx.shared.target import Classes

POLICY = """\
# What you, the owner of these records, allow. Checked on this device against every instruction,
# before anything else; a server can ask for more privacy than this, never for less.
# Every limit is explained in docs/deploy/client.md.

[privacy]
max_epsilon = 4.0             # in all, over every round of every run on these records
max_delta = 1e-4
unit = "record"               # the guarantee must protect each single record
noise = ["distributed", "local"]
allow_unprotected = false     # no training without noise

[secure_aggregation]
required = true               # no update leaves that the server could read
min_contributors = 3          # no sum of fewer clients; more hide each one better
accept_untagged = false       # no sums that the key authority could not check (CKKS)

[training]
models = []                   # those built in
tasks = []                    # of your own; those built in need no line
max_local_steps = 500
max_rounds = 1000

[release]
metrics = false               # no exact loss or metric leaves
record_counts = true          # how many records there are is told to servers that ask; false keeps
                              # it here, and only runs with privacy.record_counts = "nominal" pass
"""


_NO_TASKS = "tasks = []                    # of your own; those built in need no line\n"
_SHOWN = 8


@dataclass(frozen=True)
class Enrolled:
    """A device that was made.

    Attributes:
        device: its folder.
        request: what to give to the operators.
        ca_fingerprint: SHA-256 of the pinned CA; compare it with what the server's operator says.
        server_key: the pinned key of the server's instructions, hex; compare it too.
        warnings: what its owner should look at in the records; for him alone.
    """

    device: Device
    request: EnrolmentRequest
    ca_fingerprint: str
    server_key: str
    warnings: tuple[str, ...] = ()


def enroll(
    directory: Path,
    *,
    name: str | None,
    server: str,
    ca: Path,
    authority_key: str,
    data: DataPlace,
    server_key: str = "",
    run: Config | None = None,
    accept_overlap: bool = False,
    registry: DataRegistry | None = None,
) -> Enrolled:
    """Make a device in `directory`.

    Args:
        directory: made 0700; an existing device is not touched.
        name: its name at the server and in the ledger; None for this machine's host name.
        server: host:port of the server.
        ca: the server's CA certificate, as its operator gave it, or the folder for-devices.
        authority_key: the key authority's key, 64 hex digits; empty: this device cannot seal.
        data: where its records are; they are read once, and claimed for this device. Its task, if
            it is the owner's own code, is imported, and its hash goes into the policy.
        server_key: the key that the server signs its messages with, 64 hex digits; empty: it is
            in `instructions.pub` beside the CA.
        run: that the device is to take part in, as far as it is known; its model is tried with
            the shape of these records.
        accept_overlap: see `DataRegistry.claim`.
        registry: where they are claimed; None for this user's own.

    Raises:
        UsageError: there is a device in this folder, the CA is not a certificate, or there is no
            key of the server.
        ConfigError: a value is not allowed.
        ModelError: the run's model or the task cannot learn from such records.
        PolicyViolation: the run reads records otherwise than `data` says.
        DataError: the records are not there or cannot be used; nothing was made.
        LedgerError: some of them are charged to another device.
    """
    device = _new_device(directory)
    name = name or socket.gethostname()
    check_device_name(name)
    # A device that cannot use its records would fail in every round instead.
    task = None
    if TaskConfig(kind=data.task).is_own:
        task = load_own_task(data.task, data.python_path)
    records = stored_records(data)
    if run is not None:
        from calyx.client.rehearsal import rehearse

        data.records.check(run)
        rehearse(run, data.records.viewed(run.data.view))
    ca = ca / "ca.pem" if ca.is_dir() else ca
    try:
        certificate = ca.read_bytes()
        pinned = fingerprint(certificate)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{ca} is not a readable CA certificate: {error}",
            hint="give ca.pem, or the folder for-devices that the server's operator sent",
        ) from None
    settings = made_settings(
        DeviceSettings,
        {
            "name": name,
            "server": server,
            "server_key": server_key or _key_beside(ca),
            "authority_key": authority_key,
            "data": data,
        },
    )
    (registry or DataRegistry.of_user()).claim(
        records, device.ledger_path, files=data.records.files, accept_overlap=accept_overlap
    )
    private_directory(directory)
    # A set-up that was interrupted before its settings were written is repeated.
    for old in (device.node_key_path, device.identity_path, device.policy_path, device.ca_path):
        old.unlink(missing_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    create_private(device.node_key_path, pem)
    ContributorIdentity.create(device.identity_path)
    create_private(device.ca_path, certificate)
    create_private(device.policy_path, _first_policy(task).encode())
    # From now on, a missing file is a lost file.
    SequenceFile(device.sequence_path).advance(0)
    request = _write_request(device, settings)
    replace_file(device.settings_path, tomli_w.dumps(settings.model_dump()).encode())
    return Enrolled(device, request, pinned, settings.server_key, _warnings(data, records))


def renew_request(directory: Path) -> Enrolled:
    """A new request for an existing device, with the same keys.

    Raises:
        UsageError: there is none.
    """
    device = Device(directory)
    settings = device.settings()
    request = _write_request(device, settings)
    pinned = fingerprint(device.ca_path.read_bytes())
    return Enrolled(device, request, pinned, settings.server_key)


def load_own_task(kind: str, python_path: str) -> AgreedTask:
    """Run the code of a task that the owner names, as it is now.

    Args:
        kind: ``module:object``.
        python_path: folder with the module, if it is not installed.

    Returns:
        The task with the hash of its code: what the owner agrees to by naming it.

    Raises:
        UsageError: there is no such module that can be compared.
        PolicyViolation: other code has its name here.
        DataError: it fails.
    """
    make_importable(python_path)
    task = AgreedTask.present(kind)
    load(kind, [task])
    return task


def stored_records(data: DataPlace) -> Dataset:
    """A device's records as a ledger and the registry know them, however a run sees them.

    They are tried as far as they can be without a run: labels that are not of the task's kind would
    fail in every round. A task of the owner's own has to be loaded before (`Policy.admit_task`).

    Raises:
        DataError: no records can be used.
        ModelError: the task cannot be learned from them.
    """
    # Models are heavy, and not every command of a device needs them.
    from calyx.client.rehearsal import rehearse_task

    make_importable(data.python_path)
    if data.source == "python":
        if ":" not in data.place:
            raise DataError(
                f"{data.place} is not the name of a function",
                hint="write --data MODULE:FUNCTION",
            )
    elif data.source != "task" and not Path(data.place).exists():
        raise DataError(
            f"{data.place}: no such file or folder",
            hint="name the records with --data",
        )
    records = data.records.charged()
    if not len(records):
        raise DataError(f"{data.place} holds no records", hint="name others with --data")
    rehearse_task(TaskConfig(kind=data.task), data.records.read().train.spec)
    return records


def keep_records(directory: Path, archive: bytes) -> DataPlace:
    """Put a demonstration's records into a new device's folder, as an NPZ archive.

    Raises:
        UsageError: there is a device in this folder, whose records must stay.
    """
    _new_device(directory)
    folder = directory.absolute() / "data"
    private_directory(directory)
    if folder.exists():
        shutil.rmtree(folder)
    private_directory(folder)
    create_private(folder / "train.npz", archive)
    return DataPlace(source="npz", place=str(folder))


def _first_policy(task: AgreedTask | None) -> str:
    if task is None:
        return POLICY
    return POLICY.replace(
        _NO_TASKS, f'# Yours, as its code was when you enrolled this device.\ntasks = ["{task}"]\n'
    )


def _warnings(data: DataPlace, records: Dataset) -> tuple[str, ...]:
    """What the owner should know of the records; it says what they hold and goes nowhere else."""
    return (*data.records.read().warnings, *_lacking(data, records), *_unordered(data))


def _lacking(data: DataPlace, records: Dataset) -> Iterator[str]:
    target = records.spec.target
    if not isinstance(target, Classes):
        return
    lacking = np.setdiff1d(np.arange(target.number), records.labels)
    if not len(lacking):
        return
    names = data_settings.class_names(str(data.settings.get("classes", "")))
    shown = [names[number] if names else str(number) for number in lacking[:_SHOWN]]
    more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
    yield (
        f"there is no record of {len(lacking)} of {target.number} classes: {', '.join(shown)}{more}"
        "; that is allowed, but see that none is misspelt in data.classes or in the records"
    )


def _unordered(data: DataPlace) -> Iterator[str]:
    if data.source in ("table", "sensors") and not data.settings.get("columns"):
        yield (
            "data.columns is not set, so columns are learned from in the order of your file; all "
            "devices must have the same order, or set it"
        )


def _new_device(directory: Path) -> Device:
    device = Device(directory)
    if device.settings_path.exists():
        raise UsageError(
            f"{directory} already holds a device",
            hint=(
                "start it with calyx client join, make a new request with --renew, or choose a new "
                "folder"
            ),
        )
    return device


def _write_request(device: Device, settings: DeviceSettings) -> EnrolmentRequest:
    identity = ContributorIdentity.load(device.identity_path)
    contributor = identity.request(settings.name)
    text = make_request(settings.name, device.node_key(), identity.signing, contributor)
    replace_file(device.request_path, text.encode())
    return read_request(text)


def _key_beside(ca: Path) -> str:
    """The server's instruction key, from its operator's folder for devices."""
    path = ca.parent / INSTRUCTION_KEY_FILE
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not is_hex(text, 64):
        raise UsageError(
            f"there is no key of the server in {path}",
            hint=(
                "get the whole folder for-devices from the server's operator, or give the key with "
                "--server-key"
            ),
        )
    return text
