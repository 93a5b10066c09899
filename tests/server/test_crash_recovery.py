"""A server killed anywhere in a sealed round: the model is the same and no client pays twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calyx.authority.enrolments import Enrolments
from calyx.authority.log.events import Granted, Repeated
from calyx.authority.log.log import verify
from calyx.client.ledger.ledger import Ledger
from calyx.server.state.checkpoint import load_latest
from calyx.server.state.pending_release import FILE_NAME, load_pending
from calyx.shared.config.load import digest
from calyx.shared.errors import CheckpointError, ReleaseRefused, RoundError
from tests.server.crashing import CLIENTS, CONFIG, KILLED_IN, POINTS, ROUNDS, federate

Killed = Callable[[Path, str], None]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """Puts into a folder what a run killed in its second round has left."""
    script = str(Path(__file__).with_name("crashing.py"))
    left: dict[str, Path] = {}

    def put(folder: Path, point: str) -> None:
        if point not in left:
            left[point] = tmp_path_factory.mktemp(point)
            done = subprocess.run(
                [sys.executable, script, str(left[point]), point],
                capture_output=True,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            )
            assert done.returncode == -signal.SIGKILL, done.stderr
        shutil.copytree(left[point], folder, dirs_exist_ok=True)

    return put


def model(folder: Path) -> bytes:
    return (folder / "run" / "model.safetensors").read_bytes()


def releases(folder: Path) -> list[tuple[str, int]]:
    found = [e.event for e in verify(folder / "authority" / "releases.jsonl").entries]
    return [
        (type(event).__name__.lower(), event.round)
        for event in found
        if isinstance(event, Granted | Repeated)
    ]


def charges(folder: Path, client: int) -> list[int]:
    path = folder / "run" / "ledgers" / f"client-{client:04d}.sqlite"
    with Ledger.read_only(path) as ledger:
        ledger.verify()
        return [entry.round for entry in ledger.entries()]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    federate(folder)
    return folder


@pytest.mark.parametrize("point", POINTS)
def test_killed_server_goes_on_to_the_same_model_and_no_round_is_paid_for_twice(
    point: str, killed: Killed, uninterrupted: Path, tmp_path: Path
) -> None:
    killed(tmp_path, point)
    federate(tmp_path)
    assert model(tmp_path) == model(uninterrupted)
    for client in range(CLIENTS):
        assert charges(tmp_path, client) == list(range(1, ROUNDS + 1))
    told = releases(tmp_path)
    assert [n for kind, n in told if kind == "granted"] == list(range(1, ROUNDS + 1))
    repeated = [("repeated", KILLED_IN)] if point == "after_the_release" else []
    assert [entry for entry in told if entry[0] == "repeated"] == repeated
    assert not (tmp_path / "run" / FILE_NAME).exists()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rounds = [e for e in map(json.loads, lines) if e["event"] == "round"]
    assert [(e["round"], e["ok"], e["skipped"]) for e in rounds] == [
        (number, CLIENTS, False) for number in range(1, ROUNDS + 1)
    ]


def test_released_round_is_finished_with_no_client_there(
    killed: Killed, uninterrupted: Path, tmp_path: Path
) -> None:
    """The round after it cannot begin, and the run can be resumed again."""
    killed(tmp_path, "after_the_release")
    with pytest.raises(
        RoundError, match=r"0 of the 2 clients that a round needs.*\nhint: .*resume this run"
    ):
        federate(tmp_path, away=(0, 1, 2))
    state = load_latest(tmp_path / "run" / "checkpoints", digest(CONFIG))
    assert state is not None and state.round == KILLED_IN
    federate(tmp_path)
    assert model(tmp_path) == model(uninterrupted)


def test_run_goes_on_without_a_client_that_stays_away(killed: Killed, tmp_path: Path) -> None:
    """On the terms that the authority knows, although fewer are present."""
    killed(tmp_path, "before_the_record")
    federate(tmp_path, away=(1,))
    assert [charges(tmp_path, client) for client in range(CLIENTS)] == [
        [1, 2, 3],
        [1, 2],
        [1, 2, 3],
    ]
    assert [n for _, n in releases(tmp_path)] == [1, 2, 3]


def test_round_is_asked_again_without_a_revoked_contributor_and_nobody_pays_twice(
    killed: Killed, tmp_path: Path
) -> None:
    """The others answer with the bytes they sent before; the round had no release yet."""
    killed(tmp_path, "before_the_release")
    Enrolments(tmp_path / "authority").revoke("1")
    federate(tmp_path)
    assert [charges(tmp_path, client) for client in range(CLIENTS)] == [
        [1, 2, 3],
        [1, 2],
        [1, 2, 3],
    ]
    assert releases(tmp_path) == [("granted", n) for n in (1, 2, 3)]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rounds = [e for e in map(json.loads, lines) if e["event"] == "round"]
    assert [(e["ok"], e["asked"], e["skipped"]) for e in rounds] == [
        (3, 3, False),
        (2, 3, False),
        (2, 2, False),
    ]
    (outcome,) = rounds[1]["declined"]
    assert outcome["client"] == "1" and "was revoked" in outcome["reason"]


def test_run_ends_with_its_round_open_when_too_few_are_left_without_the_revoked(
    killed: Killed, tmp_path: Path
) -> None:
    killed(tmp_path, "before_the_release")
    Enrolments(tmp_path / "authority").revoke("1")
    Enrolments(tmp_path / "authority").revoke("2")
    with pytest.raises(
        ReleaseRefused, match="'1' was revoked(?s:.*)hint: .* the round is still open"
    ):
        federate(tmp_path)
    assert [charges(tmp_path, client) for client in range(CLIENTS)] == [[1, 2]] * CLIENTS
    state = load_latest(tmp_path / "run" / "checkpoints", digest(CONFIG))
    assert state is not None and state.round == KILLED_IN - 1


def test_client_with_other_records_than_before_is_not_asked_again(
    killed: Killed, tmp_path: Path
) -> None:
    killed(tmp_path, "before_the_record")
    path = tmp_path / "run" / "partition.npz"
    with np.load(path) as archive:
        indices = dict(archive)
    np.savez(path, **(indices | {"client-1": indices["client-1"][1:]}))
    federate(tmp_path)
    assert [charges(tmp_path, client) for client in (0, 1, 2)] == [[1, 2, 3], [1, 2], [1, 2, 3]]
    state = load_latest(tmp_path / "run" / "checkpoints", digest(CONFIG))
    assert state is not None
    reasons = {member["client"]: member["reason"] for member in state.roster}
    assert "another record count" in reasons.pop("1") and set(reasons.values()) == {""}


def test_run_does_not_go_on_with_an_authority_put_back_from_a_backup(
    killed: Killed, tmp_path: Path
) -> None:
    """Its log has lost the newest release; anything it released next could be a difference."""
    killed(tmp_path, "after_the_checkpoint")
    log = tmp_path / "authority" / "releases.jsonl"
    entries = verify(log).entries
    kept = next(i for i, e in enumerate(entries) if getattr(e.event, "round", 0) == KILLED_IN)
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:kept]))
    log.with_name(f"{log.name}.head").write_text(f"{kept} {entries[kept - 1].hash}\n")
    before = charges(tmp_path, 0)
    with pytest.raises(ReleaseRefused, match=r"^rolled-back: .*\nhint: restore its newest log"):
        federate(tmp_path)
    assert charges(tmp_path, 0) == before


def test_altered_record_is_not_used(killed: Killed, tmp_path: Path) -> None:
    killed(tmp_path, "before_the_release")
    path = tmp_path / "run" / FILE_NAME
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="altered or belongs to another run"):
        federate(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be used"):
        path.write_bytes(b"short")
        federate(tmp_path)


def test_record_of_another_key_or_round_is_of_no_use(killed: Killed, tmp_path: Path) -> None:
    killed(tmp_path, "before_the_release")
    run, config = tmp_path / "run", digest(CONFIG)
    assert load_pending(run, config, KILLED_IN, "0" * 64) is None
    assert load_pending(run, config, KILLED_IN + 1, "0" * 64) is None
    assert load_pending(tmp_path, config, KILLED_IN, "0" * 64) is None
