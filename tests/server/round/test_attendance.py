"""Which clients are present, round after round: away, back, with another number, silent."""

from __future__ import annotations

import pytest
from flwr.app import Message

from calyx.server.roster import Standing
from calyx.server.round.attendance import Attendance
from calyx.shared.config.load import build, from_settings
from calyx.shared.errors import RoundError
from calyx.shared.protocol.identity import code_hash
from calyx.shared.protocol.messages import Introduction
from calyx.simulations.engines.grid import LocalGrid

SETTINGS = [
    "federation.clients=3",
    "federation.round_timeout_s=0.3",
    "federation.join_timeout_s=0.6",
]
CONFIG = build(from_settings(SETTINGS))
ALL = ["a", "b", "c"]


class Clients:
    """A `ClientExecutor` with nodes that can be present or not, and answer or not."""

    def __init__(self) -> None:
        self.names = {2: "a", 3: "b", 4: "c"}
        self.asked: list[str] = []
        self.silent: set[str] = set()
        self.declared = 100
        self._replies: list[Message] = []

    def submit(self, message: Message) -> None:
        name = self.names[message.metadata.dst_node_id]
        self.asked.append(name)
        if name not in self.silent:
            content = Introduction(name, self.declared, "1", code_hash()).to_content()
            self._replies.append(Message(content, reply_to=message))

    def collect(self, timeout_s: float) -> list[Message]:
        replies, self._replies = self._replies, []
        return replies

    def forget(self, message_ids: set[str]) -> None:
        self._replies.clear()

    def close(self) -> None:
        self._replies.clear()


class Nodes(LocalGrid):
    def __init__(self, clients: Clients) -> None:
        super().__init__(clients, clients.names)
        self._clients = clients

    def get_node_ids(self) -> list[int]:
        self._node_ids = list(self._clients.names)
        return self._node_ids


@pytest.fixture
def clients() -> Clients:
    return Clients()


def gathered(clients: Clients) -> Attendance:
    attendance = Attendance(Nodes(clients), CONFIG)
    assert [member.client for member in attendance.gather()] == ALL
    clients.asked.clear()
    return attendance


def test_clients_that_stay_are_asked_who_they_are_once(clients: Clients) -> None:
    attendance = gathered(clients)
    assert attendance.wait_for(ALL, 3) == attendance.wait_for(ALL, 3) == ALL
    assert clients.asked == []


def test_client_that_is_away_is_left_out_and_counts_again_when_it_is_back(clients: Clients) -> None:
    attendance = gathered(clients)
    del clients.names[3]
    assert attendance.wait_for(ALL, 2) == ["a", "c"]
    clients.names[3] = "b"
    assert attendance.wait_for(ALL, 2) == ALL
    assert clients.asked == ["b"], "it may have been restarted with other code"


def test_client_that_is_back_under_another_number_is_found_there(clients: Clients) -> None:
    attendance = gathered(clients)
    del clients.names[3]
    clients.names[9] = "b"
    assert attendance.wait_for(ALL, 3) == ALL
    assert attendance.node_ids == {"a": 2, "b": 9, "c": 4} and clients.asked == ["b"]


def test_second_client_of_a_name_does_not_take_the_first_ones_place(clients: Clients) -> None:
    attendance = gathered(clients)
    clients.names[9] = "b"
    assert attendance.wait_for(ALL, 3) == ALL
    assert attendance.node_ids["b"] == 3


def test_silent_client_counts_again_when_it_says_who_it_is(clients: Clients) -> None:
    """Flower still lists it; without this each round would wait for it until its deadline."""
    attendance = gathered(clients)
    clients.silent.add("b")
    attendance.doubt(["b"])
    assert attendance.wait_for(ALL, 2) == ["a", "c"]
    assert attendance.wait_for(ALL, 2) == ["a", "c"]
    clients.silent.clear()
    assert attendance.wait_for(ALL, 2) == ALL


def test_too_few_are_waited_for_and_then_named(clients: Clients) -> None:
    attendance = gathered(clients)
    del clients.names[3], clients.names[4]
    with pytest.raises(RoundError, match=r"1 of the 2 clients that a round needs.*b, c away"):
        attendance.wait_for(ALL, 2)


def test_resumed_run_waits_for_all_a_while_before_it_goes_on_with_enough(clients: Clients) -> None:
    del clients.names[3]
    attendance = Attendance(Nodes(clients), CONFIG)
    looks = 0
    real = attendance._look

    def look(names: list[str]) -> list[str]:
        nonlocal looks
        looks += 1
        return real(names)

    attendance._look = look  # type: ignore[method-assign, assignment]
    assert attendance.wait_for(ALL, 2) == ["a", "c"] and looks > 1
    looks = 0
    assert attendance.wait_for(ALL, 2) == ["a", "c"] and looks == 1


def test_device_cannot_come_under_another_ones_name(clients: Clients) -> None:
    attendance = Attendance(Nodes(clients), CONFIG, {2: "a", 3: "b", 4: "x"})
    assert [member.client for member in attendance.gather()] == ["a", "b"]
    assert attendance.wait_for(ALL, 2) == ["a", "b"]


LIMITS = {"a": 100, "b": 99, "c": 1000}


def test_client_that_declares_more_than_is_believed_is_declined_and_weighs_no_more(
    clients: Clients,
) -> None:
    attendance = Attendance(Nodes(clients), CONFIG, clients.names, LIMITS)
    members = {member.client: member for member in attendance.gather()}
    assert members["a"].standing is members["c"].standing is Standing.ACTIVE
    assert members["b"].standing is Standing.DECLINED and members["b"].declared_records == 99
    assert "client b declares 100 records and at most 99 are believed" in members["b"].reason
    assert "--max-records" in members["b"].reason


def test_limits_stop_a_run_that_has_too_few_honest_clients_with_the_reason(
    clients: Clients,
) -> None:
    clients.declared = 10**9
    with pytest.raises(RoundError, match="client a declares 1000000000 records and at most 100"):
        Attendance(Nodes(clients), CONFIG, clients.names, LIMITS).gather()


def test_counts_that_are_not_used_are_not_limited(clients: Clients) -> None:
    counts = ["privacy.record_counts=nominal", "privacy.nominal_records=500"]
    nominal = build(from_settings([*SETTINGS, *counts]))
    clients.declared = 10**9
    members = Attendance(Nodes(clients), nominal, clients.names, dict.fromkeys(ALL, 1)).gather()
    assert {(m.standing, m.declared_records) for m in members} == {(Standing.ACTIVE, 500)}
