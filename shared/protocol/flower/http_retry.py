"""Calls to one of Flower's HTTP APIs that wait out a broken network, and faults in words.

Flower's own clients retry for ever, end the process on some answers and quote its exit codes on
others. Here a lost connection is retried until `stop` is set, a certificate that is not what was
pinned ends at once, and every other answer is an error that says what to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

from calyx.shared.errors import EnrolmentError, RunError
from calyx.shared.protocol.flower.internals import FlowerError

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
# Pause before the second look for an object that was announced.
FIRST_LOOK_S = 0.02
_BUSY = frozenset({502, 503, 504})


class Stopped(RunError):
    """What was going on was given up because this party wants to end."""

    def __init__(self) -> None:
        super().__init__("stopped by its owner")


class Rejected(RunError):
    """The other side answered, and the answer was no.

    Attributes:
        status: HTTP status.
        code: Flower's number for the reason, 0 if it gave none.
    """

    def __init__(self, message: str, status: int, code: int) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class RetryingClient:
    """Calls to one address.

    Args:
        address: host:port, for messages.
        stop: set to end pending calls.
        patience_s: how long a lost connection is tried again; None for as long as it takes.
        on_trouble: told once when a connection is lost, and once (with "") when it is back.
    """

    def __init__(
        self,
        address: str,
        stop: threading.Event,
        patience_s: float | None = None,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._address, self._stop = address, stop
        self._patience_s, self._on_trouble = patience_s, on_trouble

    def call(self, method: Callable[[_Request], _Response], request: _Request) -> _Response:
        """Send one request and return its answer.

        Raises:
            EnrolmentError: the other side's certificate is not the one to expect.
            Rejected: it answered with an error.
            RunError: it could not be reached within `patience_s`.
            Stopped: `stop` was set meanwhile.
        """
        began, pause, is_down = time.monotonic(), _FIRST_PAUSE_S, False
        while True:
            try:
                answer = method(request)
            except httpx.TransportError as error:
                if fault := certificate_fault(error, self._address):
                    raise fault from error
                reason = " ".join(str(error).split()) or type(error).__name__
            except httpx.HTTPStatusError as error:
                if error.response.status_code not in _BUSY:
                    raise _rejected(error, self._address) from error
                reason = f"it answered {error.response.status_code}"
            else:
                if is_down:
                    self._on_trouble("")
                return answer
            if not is_down:
                is_down = True
                self._on_trouble(f"{self._address} cannot be reached ({reason}); trying again")
            if self._patience_s is not None and time.monotonic() - began > self._patience_s:
                raise RunError(
                    f"{self._address} did not answer within {self._patience_s:g} s ({reason})",
                    hint="check that it runs and that this machine can reach it",
                )
            if self._stop.wait(pause):
                raise Stopped
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def certificate_fault(error: Exception, address: str) -> EnrolmentError | None:
    """What is wrong with a server's certificate, and what to do; None if that is not the fault."""
    text = str(error).lower()
    if "certificate" not in text and "hostname mismatch" not in text:
        return None
    if "expired" in text:
        return EnrolmentError(
            f"the certificate of {address} has expired",
            hint="the server's operator makes a new one with: calyx server renew DIR",
        )
    if "not yet valid" in text:
        return EnrolmentError(
            f"the certificate of {address} is not valid yet", hint="set this machine's clock"
        )
    if "mismatch" in text or "doesn't match" in text or "not valid for" in text:
        return EnrolmentError(
            f"the certificate of {address} is for another host name",
            hint=(
                "use a name that it was made for, or have the operator add this one with: "
                "calyx server renew DIR --host NAME"
            ),
        )
    return EnrolmentError(
        f"the certificate of {address} is not signed by the CA that was pinned at enrolment; this "
        "is another server, or a third party between it and this device",
        hint="do not go on before its operator has told you the fingerprint of its CA",
    )


def _rejected(error: httpx.HTTPStatusError, address: str) -> Rejected:
    status = error.response.status_code
    known = FlowerError.from_json(error.response.text)
    detail = known.message if known else error.response.reason_phrase
    extra = f" ({known.public_details})" if known and known.public_details else ""
    text = " ".join(f"{address} refused: {detail}{extra}".split())
    return Rejected(text, status, known.code if known else 0)
