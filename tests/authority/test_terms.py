"""What a run is bound to, who learns of it, and a log older than what it has released."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from calyx.authority.local import LocalAuthority
from calyx.authority.log.events import Granted
from calyx.authority.release import State, apply, decide, open_run
from calyx.shared.errors import ConfigError, ProtocolError, ReleaseRefused
from calyx.shared.protocol.authority.client import RemoteAuthority
from calyx.shared.protocol.authority.interface import Refusal
from calyx.shared.protocol.sealed.admission import Admission
from tests.authority.decisions import decisions
from tests.authority.releases import (
    CONFIG_DIGEST,
    MINIMUM,
    NAMES,
    PLAN_DIGEST,
    opened_state,
    reason,
    request,
    terms,
)
from tests.authority.served_authority import ServedAuthority

OpenRun = Callable[..., Any]


@pytest.mark.parametrize("far", [False, True], ids=["in process", "over gRPC"])
def test_every_contributor_is_signed_the_same_plan_and_configuration(
    far: bool, served: ServedAuthority, open_run: OpenRun
) -> None:
    with served.connect() as remote:
        key = served.authority.verify_key
        run = open_run(remote if far else served.authority, key)
        for device in run.devices:
            admission = run.opening.admissions[device.name]
            assert (admission.plan_digest, admission.config_digest) == (PLAN_DIGEST, CONFIG_DIGEST)
            assert run.tag_keys(device)  # so it is signed
            assert run.opening.contributor_keys[device.name] == device.keys.verify_key
        assert set(run.opening.contributor_keys) == {device.name for device in run.devices}


@pytest.mark.parametrize("digests", [("9" * 64, CONFIG_DIGEST), (PLAN_DIGEST, "9" * 64)])
def test_run_cannot_be_opened_again_on_another_plan_or_configuration(
    authority: LocalAuthority, run: Any, digests: tuple[str, str]
) -> None:
    names = [device.name for device in run.devices]
    with pytest.raises(ReleaseRefused, match="^terms: .* on other terms"):
        authority.open_run("run-1", run.parameters, 3, names, *digests)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"config_digest": ""}, "update the server"),
        ({"config_digest": "x"}, "update the server"),
        ({"plan_digest": "x"}, "digest of the plan"),
    ],
    ids=str,
)
def test_run_without_a_configuration_is_not_opened(changes: dict[str, str], said: str) -> None:
    asked = terms("new", **changes)
    with pytest.raises(ReleaseRefused, match=said):
        open_run(opened_state(), asked, floor=MINIMUM, accept_untagged=False)


def test_run_whose_clients_have_plans_of_their_own_is_opened() -> None:
    asked = terms("new", plan_digest="")
    assert open_run(opened_state(), asked, floor=MINIMUM, accept_untagged=False) == asked


def as_older_version(log: Path) -> None:
    """Rewrite a log as the version before wrote it: runs without plan and configuration."""
    previous, lines = "0" * 64, []
    for line in log.read_bytes().splitlines():
        body = json.loads(line)
        for added in ("hash", "plan_digest", "config_digest"):
            body.pop(added, None)
        body["previous"] = previous
        text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
        previous = hashlib.sha256(b"calyx/log/v1\n" + text).hexdigest()
        whole = {**body, "hash": previous}
        lines.append(json.dumps(whole, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    log.write_bytes(b"".join(lines))
    log.with_name(f"{log.name}.head").write_text(f"{len(lines)} {previous}\n")


def test_run_of_an_older_version_is_refused_by_its_reason_and_a_new_one_works(
    authority: LocalAuthority, run: Any, folder: Path, open_run: OpenRun
) -> None:
    asked, chunks = run.request(1, run.uploads(1))
    authority.close()
    as_older_version(folder / "releases.jsonl")
    with LocalAuthority(folder) as upgraded:
        with pytest.raises(
            ReleaseRefused, match=r"^terms: .*older version.*\nhint: start a new run"
        ):
            open_run(upgraded, upgraded.verify_key)
        with pytest.raises(ReleaseRefused, match=r"^terms: .*older version.*; start a new run"):
            upgraded.release(asked, chunks)
        upgraded.close_run("run-1")
        new = open_run(upgraded, upgraded.verify_key, "run-2")
        assert upgraded.release(*new.request(1, new.uploads(1))).values.size


def test_admission_of_an_older_version_cannot_be_read(run: Any) -> None:
    fields = json.loads(run.opening.admissions[NAMES[0]].to_json())
    added = ("plan_digest", "config_digest")
    with pytest.raises(ProtocolError, match="older version"):
        Admission.from_json(json.dumps({k: v for k, v in fields.items() if k not in added}))
    with pytest.raises(ProtocolError, match="could not be read"):
        Admission.from_json(json.dumps({k: v for k, v in fields.items() if k != "plan_digest"}))


def test_pure_rules_release_nothing_of_a_run_without_a_configuration() -> None:
    state = opened_state()
    assert reason(State(state.enrolled), request(NAMES[:3])) is Refusal.UNKNOWN_RUN
    old = apply(state, replace(terms(), config_digest=""))
    assert reason(old, request(NAMES[:3])) is Refusal.TERMS
    assert decide(state, request(NAMES[:3])).run == "run"


@pytest.mark.parametrize("far", [False, True], ids=["in process", "over gRPC"])
def test_authority_put_back_from_a_backup_refuses_the_run_it_released(
    far: bool, folder: Path, devices: Any, open_run: OpenRun, request: pytest.FixtureRequest
) -> None:
    """It would release the round again, to others, and the difference is a single update."""
    with LocalAuthority(folder) as authority:
        authority.enrolments.approve([device.keys for device in devices])
        run = open_run(authority, authority.verify_key)
        shutil.copytree(folder, folder.with_name("backup"))
        uploads = run.uploads(1, 5)
        released = authority.release(*run.request(1, uploads))
        head = (released.log_index, released.log_hash)
        assert open_run(authority, authority.verify_key, known_head=head).opening
    shutil.rmtree(folder)
    shutil.move(folder.with_name("backup"), folder)
    if far:
        served = request.getfixturevalue("served")
        with served.connect() as remote:
            refused(remote, served.authority, open_run, head)
    else:
        with LocalAuthority(folder) as restored:
            refused(restored, restored, open_run, head)


def refused(
    asked: LocalAuthority | RemoteAuthority,
    authority: LocalAuthority,
    open_run: OpenRun,
    head: tuple[int, str],
) -> None:
    # The log grows again, beyond the position of the entry that it lost.
    for number in range(3):
        open_run(authority, authority.verify_key, f"more-{number}")
    with pytest.raises(ReleaseRefused, match=r"^rolled-back: .*restored from a backup") as caught:
        open_run(asked, authority.verify_key, known_head=head)
    assert "\n" not in str(caught.value)


def test_authority_put_back_without_the_keys_of_runs_releases_nothing_of_them(
    authority: LocalAuthority, run: Any, folder: Path, open_run: OpenRun
) -> None:
    """As its documentation requires: even a server that shows no head gets no second sum."""
    asked, chunks = run.request(1, run.uploads(1))
    authority.close()
    shutil.rmtree(folder / "keys")
    with LocalAuthority(folder) as restored:
        with pytest.raises(
            ReleaseRefused, match=r"^closed-run: .* is gone .*\nhint: start a new run"
        ):
            restored.release(asked, chunks)
        with pytest.raises(ReleaseRefused, match=r"^closed-run"):
            open_run(restored, restored.verify_key)
        assert not [d for d in decisions(folder) if isinstance(d, Granted)]
        new = open_run(restored, restored.verify_key, "run-2")
        assert restored.release(*new.request(1, new.uploads(1))).values.size


@pytest.mark.parametrize("head", [(10_000, "0" * 64), (0, "0" * 64), (0, "")])
def test_head_that_the_log_does_not_have_is_refused(
    authority: LocalAuthority, run: Any, open_run: OpenRun, head: tuple[int, str]
) -> None:
    with pytest.raises(ReleaseRefused, match="^rolled-back"):
        open_run(authority, authority.verify_key, known_head=head)


def test_heads_of_several_runs_and_of_a_restarted_authority_are_known(
    authority: LocalAuthority, run: Any, folder: Path, open_run: OpenRun
) -> None:
    other = open_run(authority, authority.verify_key, "run-2")
    heads = {}
    for each in (run, other):
        released = authority.release(*each.request(1, each.uploads(1)))
        heads[each.name] = (released.log_index, released.log_hash)
    authority.close()
    with LocalAuthority(folder) as restarted:
        for name, head in heads.items():
            assert open_run(restarted, restarted.verify_key, name, known_head=head).opening


def test_minimum_below_two_is_no_authority(folder: Path) -> None:
    with pytest.raises(ConfigError, match="would release single updates"):
        LocalAuthority(folder, min_contributors=1)
    assert not folder.exists()


def test_authority_without_a_stated_minimum_opens_no_run_of_two(
    authority: LocalAuthority, open_run: OpenRun
) -> None:
    with pytest.raises(ReleaseRefused, match="min_contributors is 2; this authority requires 3"):
        open_run(authority, authority.verify_key, min_contributors=2)
