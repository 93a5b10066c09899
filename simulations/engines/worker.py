"""A worker process of `pool`: ``python -m calyx.simulations.engines.worker FD``.

It first receives what to play, answers with an empty message when the app is loaded (or with one
line of what went wrong), then answers one message at a time until the connection closes. Its
environment limits every numerical library to one thread.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

_LOOK_S = 0.25


def main(descriptor: int) -> None:
    """Serve messages that arrive on an inherited socket."""
    # Ctrl-C goes to the whole process group; the parent decides when workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with(os.getppid())
    pipe = Connection(descriptor)
    try:
        start = json.loads(pipe.recv_bytes())
    except EOFError:
        return
    # Places of the user's own modules come last, so that they cannot replace ours.
    sys.path += [place for place in start["path"] if place not in sys.path]
    try:
        from calyx.simulations.engines.grid import answer, client_contexts, take_identity
        from calyx.simulations.engines.pool import decode, encode

        take_identity()
        module, _, attribute = start["app"].partition(":")
        app = getattr(importlib.import_module(module), attribute)
        nodes = {int(node): settings for node, settings in start["nodes"]}
        contexts = client_contexts(nodes, start["run_config"])
    except Exception as error:  # must reach the parent as one line
        from calyx.shared.errors import full_text

        pipe.send_bytes(f"{type(error).__name__}: {full_text(error)}".encode())
        return
    pipe.send_bytes(b"")
    while True:
        try:
            message = decode(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        reply = answer(app, message, contexts[message.metadata.dst_node_id])
        pipe.send_bytes(encode(reply))


def _end_with(parent: int) -> None:
    """End in the middle of a round, too, when the parent was killed: it holds the run folder."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]))
