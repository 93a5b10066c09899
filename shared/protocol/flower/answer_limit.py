"""A limit on the answers that a device reads."""

from __future__ import annotations

from collections.abc import Callable

import httpx
from flwr.supernode.fleet_http_client import FleetHttpClient

from calyx.shared.errors import RunError


class AnswerRefused(RunError):
    """An answer whose body was not read: it is or may be too long."""


def limit_answers(client: FleetHttpClient, most: Callable[[str], int]) -> None:
    """Have a client refuse an answer before its body is read, if that is or may be too long.

    Args:
        client: whose.
        most: bytes allowed in the answer to a path.
    """
    calls: httpx.Client = client._client

    def look(response: httpx.Response) -> None:
        path, length = response.request.url.path, response.headers.get("content-length", "")
        if response.is_redirect:
            raise AnswerRefused("the server redirects its devices elsewhere, which is not followed")
        if not length.isdigit() and response.is_error:
            # Some proxy's; the call is made again.
            raise httpx.RemoteProtocolError(f"it answered {response.status_code} and no length")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise AnswerRefused("the server answers in a compressed form, of no known size")
        if not length.isdigit():
            raise AnswerRefused("the server does not say how long its answer is")
        if int(length) > most(path):
            raise AnswerRefused(f"the server's answer has {length} bytes; {most(path)} are allowed")

    calls.event_hooks = {"response": [look]}
