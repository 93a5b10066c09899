"""The whole authority in process, with real ciphertexts, honest and dishonest servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from authority.events import Granted, Refused, Repeated
from authority.local import LocalAuthority
from authority.log import verify
from shared.encryption import derive_parameters
from shared.errors import EncryptionError, LedgerError, ReleaseRefused
from shared.protocol.authority_client import Refusal

from .decisions import TotalOf, decisions, refusal


def test_an_honest_sum_is_released_exactly(
    authority: LocalAuthority, run: Any, total_of: TotalOf, folder: Path
) -> None:
    for round in (1, 2):
        uploads = run.uploads(round, count=3 + round)
        request, chunks = run.request(round, uploads)
        released = authority.release(request, chunks)
        assert released.values.dtype == np.int64
        assert (released.values == total_of(uploads)).all()
        entry = verify(folder / "releases.jsonl").entries[released.log_index]
        assert entry.hash == released.log_hash
        assert entry.event == Granted(
            "run-1",
            round,
            tuple(device.name for device in run.devices[: 3 + round]),
            request.sum_hash,
            request.digest,
        )


def test_the_same_request_gives_the_same_values_also_after_a_restart(
    authority: LocalAuthority, run: Any, folder: Path
) -> None:
    request, chunks = run.request(1, run.uploads(1))
    first = authority.release(request, chunks)
    again = authority.release(request, chunks)
    authority.close()
    with LocalAuthority(folder) as restarted:
        third = restarted.release(request, chunks)
        assert (first.values == again.values).all() and (first.values == third.values).all()
        other = run.request(1, run.uploads(1, count=4))
        assert refusal(restarted, *other) == Refusal.ALREADY_RELEASED
    assert [type(d) for d in decisions(folder)] == [Granted, Repeated, Repeated, Refused]


def test_opening_again_gives_the_same_key_also_after_a_restart(
    authority: LocalAuthority, run: Any, folder: Path, open_run: Callable[..., Any]
) -> None:
    authority.close()
    with LocalAuthority(folder) as restarted:
        again = open_run(restarted, restarted.verify_key)
        assert again.opening.public_context == run.opening.public_context
        for device in run.devices:
            assert again.tag_keys(device) == run.tag_keys(device)
        with pytest.raises(ReleaseRefused, match=r"^terms"):
            open_run(restarted, restarted.verify_key, min_contributors=4)


def test_each_run_has_keys_of_its_own(
    authority: LocalAuthority, run: Any, open_run: Callable[..., Any]
) -> None:
    other = open_run(authority, authority.verify_key, "run-2")
    device = run.devices[0]
    assert other.opening.public_context != run.opening.public_context
    assert other.tag_keys(device).weights_key != run.tag_keys(device).weights_key
    assert run.tag_keys(device).pads_key != run.tag_keys(run.devices[1]).pads_key
    assert run.tag_keys(device).weights_key == run.tag_keys(run.devices[1]).weights_key


def test_a_closed_run_has_no_key_any_more(
    authority: LocalAuthority, run: Any, folder: Path
) -> None:
    asked = run.request(1, run.uploads(1))
    assert len(list((folder / "keys").iterdir())) == 1
    authority.close_run("run-1")
    authority.close_run("run-1")
    assert list((folder / "keys").iterdir()) == []
    assert refusal(authority, *asked) == Refusal.CLOSED_RUN
    with pytest.raises(ReleaseRefused, match=r"^unknown-run"):
        authority.close_run("another")


def test_a_key_left_by_a_crash_while_closing_is_destroyed_at_the_next_start(
    authority: LocalAuthority, run: Any, folder: Path
) -> None:
    (path,) = (folder / "keys").iterdir()
    content = path.read_bytes()
    authority.close_run("run-1")
    authority.close()
    path.write_bytes(content)
    with LocalAuthority(folder):
        assert not path.exists()


def test_an_approval_and_a_revocation_take_effect_without_a_restart(
    authority: LocalAuthority, run: Any, open_run: Callable[..., Any]
) -> None:
    uploads = run.uploads(1)
    authority.roster.revoke(run.devices[0].name)
    assert refusal(authority, *run.request(1, uploads)) == Refusal.REVOKED
    with pytest.raises(ReleaseRefused, match=r"^revoked"):
        open_run(authority, authority.verify_key, "run-2")
    with pytest.raises(ReleaseRefused, match=r"^revoked"):
        authority.roster.approve([run.devices[0].keys])


def test_plain_sums_are_not_its_business(
    authority: LocalAuthority, open_run: Callable[..., Any]
) -> None:
    parameters = derive_parameters(scheme="none", contributors=5, value_bound=100, length=300)
    with pytest.raises(ReleaseRefused, match=r"^terms"):
        open_run(authority, authority.verify_key, parameters=parameters)


def test_a_passphrase_protects_every_secret_of_the_folder(
    folder: Path, devices: Any, open_run: Callable[..., Any]
) -> None:
    with LocalAuthority(folder, passphrase=b"right") as authority:
        authority.roster.approve([device.keys for device in devices])
        run = open_run(authority, authority.verify_key)
        secret = authority._keys["run-1"]._tag_secret
        for path in folder.rglob("*"):
            assert path.is_dir() or secret not in path.read_bytes()
        asked = run.request(1, run.uploads(1))
    for wrong in (None, b"wrong"):
        with pytest.raises(EncryptionError, match="passphrase"):
            LocalAuthority(folder, passphrase=wrong)
    with LocalAuthority(folder, passphrase=b"right") as authority:
        assert len(authority.release(*asked).values) == run.parameters.length


def test_nothing_in_the_folder_is_open_to_others(
    authority: LocalAuthority, run: Any, folder: Path
) -> None:
    authority.release(*run.request(1, run.uploads(1)))
    for path in (folder, *folder.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path


def test_no_second_authority_works_on_the_folder(authority: LocalAuthority, folder: Path) -> None:
    with pytest.raises(LedgerError, match="in use"):
        LocalAuthority(folder)


def test_a_lost_identity_is_not_replaced_by_a_new_one(
    authority: LocalAuthority, run: Any, folder: Path
) -> None:
    authority.close()
    (folder / "identity.key").unlink()
    with pytest.raises(LedgerError, match="trust no other"):
        LocalAuthority(folder)
