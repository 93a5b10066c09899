"""What is captured is what each party got, and the server of a sealed run gets no update."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calyx.audit.attacks import party_views
from calyx.audit.attacks.inversion.estimates import contribution
from calyx.audit.attacks.inversion.reference_federation import CapturedRound
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.findings.measured import party_views as findings
from calyx.audit.finished_run import AuditedRun
from calyx.audit.replay.capture import (
    AUTHORITY,
    NETWORK,
    SERVER,
    client_name,
    released_integers,
    requested_chunks,
)
from calyx.client.training.dp_sgd import clipped_gradient_sum
from calyx.shared.encryption.quantise import IntegerGrid
from calyx.shared.errors import EvidenceError
from calyx.shared.privacy.rotation import Rotation
from calyx.shared.protocol.sealed.messages import rotation_seed
from calyx.shared.target import Classes
from calyx.shared.tasks.classification import classification
from calyx.simulations import run
from calyx.simulations.presets import resolve

SMALL = ("federation.clients=3", "data.max_records=60", "secure_aggregation.min_contributors=2")


@pytest.fixture(scope="module")
def sealed() -> CapturedRound:
    return party_views.replay(resolve("digits-cnn", [*SMALL, "training.rounds=3"]))[0]


def test_first_round_and_its_result_are_captured(sealed: CapturedRound) -> None:
    rounds = {(c.kind, c.round) for c in sealed.capture.messages}
    assert {("query", 0), ("query.sealing", 0), ("train", 1), ("released sum", 1)} <= rounds
    # The instructions of round 2 carry the result of round 1; its replies were not waited for.
    assert len(sealed.capture.find("train", 2, sender=SERVER)) == 3
    assert not sealed.capture.find("train", 2, receiver=SERVER)


def test_a_view_is_what_its_party_sent_or_received(sealed: CapturedRound) -> None:
    capture = sealed.capture
    for party in (SERVER, AUTHORITY, client_name(1)):
        assert all(party in (c.sender, c.receiver) for c in capture.view(party))
    assert capture.view(NETWORK) == capture.messages
    # No client is shown a message of another, and the authority never a single upload.
    uploads = {c.sha256 for c in capture.find("train", 1, receiver=SERVER)}
    assert not uploads & {c.sha256 for c in capture.view(AUTHORITY)}
    (request,) = capture.find("release request", 1)
    parts = {
        bytes(chunk)
        for c in capture.find("train", 1, receiver=SERVER)
        for chunk in c.message.content["sealed"]["chunks"]  # type: ignore[union-attr]
    }
    assert len(parts) == 3 * len(requested_chunks(request))
    assert not parts & set(requested_chunks(request))


def test_servers_sealed_view_holds_no_plaintext_update(sealed: CapturedRound) -> None:
    """Not as a gradient, nor rotated, nor as integers; but the released sum is there."""
    seen = b"".join(part for c in sealed.capture.view(SERVER) for part in c.parts)
    for client in range(3):
        for form in forms_of_update(sealed, client):
            assert not holds(seen, form)
    (released,) = sealed.capture.find("released sum", 1)
    assert holds(seen, released_integers(released))
    total = np.sum([contribution(sealed, client) for client in range(3)], axis=0)
    np.testing.assert_array_equal(released_integers(released), total)


def test_the_same_search_finds_an_update_that_is_not_sealed() -> None:
    settings = [*SMALL, "privacy.noise=none", "secure_aggregation.scheme=none", "training.rounds=1"]
    captured, _ = party_views.replay(resolve("digits-cnn", settings))
    seen = b"".join(part for c in captured.capture.view(SERVER) for part in c.parts)
    assert holds(seen, captured.reply(1)["fc1.weight"].ravel())


def forms_of_update(captured: CapturedRound, client: int) -> list[np.ndarray]:  # type: ignore[type-arg]
    """A client's update in every form in which it exists on the device."""
    from calyx.client.node import Node

    node = Node(str(client), client, "", captured.config.seed, "", "", "")
    vector, _ = clipped_gradient_sum(
        captured.model,
        captured.records[client],
        classification(Classes(10)),
        captured.plan,
        node.noise("unused"),
    )
    assert captured.plan.mechanism is not None
    rotated = Rotation(len(vector), rotation_seed(captured.config, 1)).forward(vector)
    grid = IntegerGrid(captured.plan.mechanism.step, captured.plan.mechanism.clamp)
    return [vector, rotated, np.rint(grid.scaled(rotated)), contribution(captured, client)]


def holds(content: bytes, values: np.ndarray) -> bool:  # type: ignore[type-arg]
    """Whether four neighbouring values stand somewhere in the bytes, in any common type."""
    # Not where there are zeros, which stand everywhere.
    starts = [i for i in range(0, len(values) - 4, 997) if values[i : i + 4].all()]
    assert len(starts) > 10
    kinds = ["<f4", "<f8", ">f4", ">f8"]
    if (values == np.rint(values)).all():
        kinds += ["<i4", "<i8", ">i4", ">i8"]
    runs = [values[i : i + 4].astype(kind).tobytes() for i in starts for kind in kinds]
    return any(run in content for run in runs)


def test_unprotected_records_are_found_in_what_the_server_got(tmp_path: Path) -> None:
    settings = [
        "federation.clients=6",
        "data.max_records=6",
        "secure_aggregation.min_contributors=2",
        "privacy.noise=none",
        "secure_aggregation.scheme=none",
    ]
    run("digits-cnn", rounds=1, settings=settings, out=tmp_path / "run", workers=1)
    section, _ = attacked(tmp_path / "run")
    (server,) = [view for view in section.views if view.party == SERVER]
    (estimate,) = server.sights
    assert (estimate.records, estimate.clients) == (1, 1)
    assert estimate.reconstructions[0].recovered == 1
    assert estimate.labels is not None
    assert (estimate.labels.named, estimate.labels.right, estimate.labels.present) == (1, 1, 1)
    assert SERVER in section.answer


def test_with_noise_no_record_is_found_and_altered_bytes_are_refused(run_dir: Path) -> None:
    section, store = attacked(run_dir)
    assert {view.party for view in section.views} >= {SERVER, NETWORK, "public", client_name(2)}
    for view in section.views:
        assert view.bytes > 0 and view.captured and len(view.digest) == 64
        for estimate in view.sights:
            assert all(found.recovered == 0 for found in estimate.reconstructions)
            assert 0 < estimate.captured_bytes <= view.bytes
    kept = store.get_arrays(party_views.CAPTURED)
    first = next(iter(kept))
    kept[first] = kept[first].copy()
    kept[first][100] ^= 1
    facts = store.get_json(party_views.NAME)
    with pytest.raises(EvidenceError, match="not those listed"):
        findings.check_bytes(facts["crossings"], facts["sights"], kept)
    json.dumps(section.model_dump(mode="json"), allow_nan=False)


def attacked(folder: Path) -> tuple[findings.ViewsSection, EvidenceStore]:
    audited, store = AuditedRun(folder), EvidenceStore(folder)
    party_views.run(audited, store, lambda _, share: None)
    found = findings.find(audited, store)
    assert found is not None
    return found, store
