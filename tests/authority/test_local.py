"""The whole authority in process, with real ciphertexts, honest and dishonest servers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calyx.authority.keys.key_store import MAX_KEYS_IN_MEMORY
from calyx.authority.local import LocalAuthority
from calyx.authority.log.events import Granted, MoreRefused, Refused, Repeated, names_hash
from calyx.authority.log.log import verify
from calyx.authority.log.refusal_lines import MAX_LINES
from calyx.shared.encryption import derive_parameters
from calyx.shared.errors import EncryptionError, LedgerError, ReleaseRefused
from calyx.shared.protocol.authority.interface import Refusal
from tests.authority.decisions import TotalOf, decisions, refusal


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
            3 + round,
            names_hash(device.name for device in run.devices[: 3 + round]),
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
    authority.enrolments.revoke(run.devices[0].name)
    assert refusal(authority, *run.request(1, uploads)) == Refusal.REVOKED
    with pytest.raises(ReleaseRefused, match=r"^revoked"):
        open_run(authority, authority.verify_key, "run-2")
    with pytest.raises(ReleaseRefused, match=r"^revoked"):
        authority.enrolments.approve([run.devices[0].keys])


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
        authority.enrolments.approve([device.keys for device in devices])
        run = open_run(authority, authority.verify_key)
        secret = authority._keys.get("run-1")._tag_secret
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


def test_refusals_do_not_fill_the_log_and_are_all_counted(
    authority: LocalAuthority, run: Any, folder: Path
) -> None:
    """Requests that differ each time; the count continues after a restart; releases still work."""
    path = folder / "releases.jsonl"
    request, chunks = run.request(1, run.uploads(1))
    sizes = []
    for number in range(1000):
        other = replace(request, sum_hash=f"{number:064x}", contributors=4)
        with pytest.raises(ReleaseRefused, match="^count"):
            authority.check(other)
        sizes.append(path.stat().st_size)
    whole = [entry.event for entry in verify(path).entries if isinstance(entry.event, Refused)]
    assert len(whole) == MAX_LINES and whole[0] != whole[1]
    assert sizes[-1] - sizes[MAX_LINES] < 10_000
    assert sizes[-1] == sizes[-200]
    authority.close()
    with LocalAuthority(folder) as restarted:
        for _ in range(1000):
            with pytest.raises(ReleaseRefused, match="^count"):
                restarted.check(replace(request, contributors=4))
        released = restarted.release(request, chunks)
        assert released.log_index == len(verify(path).entries) - 1
    counts = [e.event.count for e in verify(path).entries if isinstance(e.event, MoreRefused)]
    assert counts == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]


def test_invented_runs_share_one_allowance_and_take_none_of_a_runs_own(
    authority: LocalAuthority, run: Any, folder: Path
) -> None:
    path = folder / "releases.jsonl"
    for number in range(MAX_LINES + 3):
        with pytest.raises(ReleaseRefused, match="^unknown-run"):
            authority.close_run(f"invented-{number}")
    request, _ = run.request(1, run.uploads(1, count=2))
    with pytest.raises(ReleaseRefused, match="^too-few"):
        authority.check(request)
    events = [entry.event for entry in verify(path).entries]
    assert [e for e in events if isinstance(e, MoreRefused)] == [
        MoreRefused("", 1),
        MoreRefused("", 2),
    ]
    assert isinstance(events[-1], Refused) and events[-1].run == "run-1"


def test_refused_openings_and_releases_name_nobody_in_the_log(
    authority: LocalAuthority, run: Any, folder: Path
) -> None:
    """Only the terms of a run that was opened have the names, once."""
    names = [f"{number:04d}-{'x' * 90}" for number in range(4000)]
    parameters = derive_parameters(scheme="bfv", contributors=4000, value_bound=100, length=50)
    before = (folder / "releases.jsonl").stat().st_size
    with pytest.raises(ReleaseRefused, match="^not-enrolled"):
        authority.open_run("large", parameters, 3, names, "0" * 64, "0" * 64)
    assert (folder / "releases.jsonl").stat().st_size - before < 1000
    last = verify(folder / "releases.jsonl").entries[-1].event
    assert isinstance(last, Refused)
    assert (last.contributors, last.contributors_hash) == (4000, names_hash(names))
    authority.release(*run.request(1, run.uploads(1)))
    assert (folder / "releases.jsonl").read_text().count('"device-0"') == 2  # enrolled, opened


def test_runs_without_end_are_not_opened(
    authority: LocalAuthority,
    run: Any,
    folder: Path,
    open_run: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each costs the disk a key and a line with its members."""
    monkeypatch.setattr(authority, "_openings", deque([time.monotonic()] * 100, maxlen=100))
    with pytest.raises(ReleaseRefused, match="100 runs were opened within an hour"):
        open_run(authority, authority.verify_key, "one-more")
    assert len(list((folder / "keys").iterdir())) == 1
    open_run(authority, authority.verify_key)  # the same terms again are not a new run
    hour_ago = time.monotonic() - 3601
    monkeypatch.setattr(authority, "_openings", deque([hour_ago] * 100, maxlen=100))
    open_run(authority, authority.verify_key, "one-more")


def test_keys_of_many_runs_are_not_all_kept_in_memory(
    authority: LocalAuthority, run: Any, open_run: Callable[..., Any], total_of: TotalOf
) -> None:
    for number in range(MAX_KEYS_IN_MEMORY):
        open_run(authority, authority.verify_key, f"other-{number}")
    in_memory = authority._keys._keys
    assert len(in_memory) == MAX_KEYS_IN_MEMORY and "run-1" not in in_memory
    uploads = run.uploads(1)
    assert (authority.release(*run.request(1, uploads)).values == total_of(uploads)).all()
