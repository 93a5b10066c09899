"""The node: receive a message, let this device's own client app answer it, send the answer.

One process, one message at a time, one warm model library. The app is the one installed here. If
the server's run asks for something that the device's owner does not allow, or anything goes wrong,
the app answers with a refusal; nothing else can be requested from this device.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from calyx.client.deployment.fleet import Fleet, MessageLost, RunOver
from calyx.client.deployment.folder import NodeSettings
from calyx.shared.errors import CalyxError
from calyx.shared.protocol.flower.http_retry import Rejected
from calyx.shared.protocol.refusals import error_reply, read_failure

_log = logging.getLogger("calyx.client")

# A device that was asked a moment ago is likely to be asked again at once.
_BUSY_S, _BUSY_PAUSE_S, _IDLE_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 0.1, 1.0, 30.0


@dataclass(frozen=True)
class Answered:
    """One message that this device has answered.

    Attributes:
        run_id: Flower's number of the run.
        what: kind of message, as in Flower: query, train, evaluate.
        round: number of the round; 0 before the first.
        refusal: why the device did not do it; empty if it did.
        seconds: how long it took.
    """

    run_id: int
    what: str
    round: int
    refusal: str
    seconds: float


class SuperNode:
    """Serves one server until it is told to stop.

    Args:
        fleet: the connected server.
        app: this device's client app.
        settings: this device's node settings.
        node_id: as given by the server.
        stop: ends the loop.
        on_answer: called with each answered message.
        on_trouble: called with the reason why a message was lost.
    """

    def __init__(
        self,
        fleet: Fleet,
        app: ClientApp,
        settings: NodeSettings,
        node_id: int,
        stop: threading.Event,
        on_answer: Callable[[Answered], None],
        on_trouble: Callable[[str], None],
    ) -> None:
        self._fleet, self._app, self._settings = fleet, app, settings
        self._node_id, self._stop = node_id, stop
        self._on_answer, self._on_trouble = on_answer, on_trouble

    def serve(self) -> None:
        """Answer messages until `stop` is set.

        Raises:
            EnrolmentError: the server no longer accepts this device.
            Stopped: `stop` was set while the server could not be reached.
        """
        last, lost = time.monotonic(), 0
        while not self._stop.is_set():
            is_busy = time.monotonic() - last < _BUSY_S
            pause = _BUSY_PAUSE_S if is_busy else _IDLE_PAUSE_S
            try:
                message = self._fleet.receive()
                if message is not None:
                    self._answer(message)
                    last, lost = time.monotonic(), 0
                    continue
            except RunOver:
                _log.info("a run has ended before this device answered")
            except (MessageLost, Rejected) as error:
                # The round continues without this device; the next one may go better.
                self._on_trouble(error.full_text)
                lost += 1
                pause = min(2.0**lost, _LONGEST_PAUSE_S)
            self._stop.wait(pause)

    def _answer(self, message: Message) -> None:
        began = time.monotonic()
        metadata = message.metadata
        context = Context(
            run_id=metadata.run_id,
            node_id=self._node_id,
            node_config=dict(self._settings),
            state=RecordDict(),
            run_config=self._fleet.run_config(metadata.run_id),
        )
        reply = self._reply(message, context)
        seconds = time.monotonic() - began
        refusal = read_failure(reply).reason if reply.has_error() else ""
        self._fleet.send(reply, seconds)
        group: Any = metadata.group_id
        number = int(group) if str(group).isdigit() else 0
        what = str(metadata.message_type)
        self._on_answer(Answered(metadata.run_id, what, number, refusal, seconds))

    def _reply(self, message: Message, context: Context) -> Message:
        try:
            return self._app(message, context)
        except CalyxError as error:
            return error_reply(error, message)
        except Exception as error:  # the app knows no such message; its text stays here
            _log.exception("a message could not be answered")
            return Message(Error(code=0, reason=type(error).__name__), reply_to=message)
