"""The Flower ClientApp: wiring only.

One training message, in order: check that the server signed it, read the instruction, check the
owner's policy, write the ledger, train, protect, answer. Any failure becomes a typed error reply,
with as much of its text as may leave the device (`calyx.shared.protocol.refusals`). The whole text
is logged here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from calyx.client.instructions import accept
from calyx.client.node import Node
from calyx.shared.config.load import from_run_config
from calyx.shared.errors import CalyxError, full_text
from calyx.shared.protocol.identity import code_hash, software_version
from calyx.shared.protocol.messages import Introduction
from calyx.shared.protocol.refusals import error_reply

Handler = Callable[[Message, Context], Message]

_log = logging.getLogger("calyx.client")

app = ClientApp()


def _answering(handler: Handler) -> Handler:
    """Obey only the device's own server; turn exceptions into error replies.

    So one failing client fails alone.
    """

    @wraps(handler)
    def answer(message: Message, context: Context) -> Message:
        try:
            accept(message, context)
            return handler(message, context)
        except Exception as error:  # the process boundary: everything must become a reply
            # As information, shown only to those who asked for a log: a simulation has none.
            _log.info("not done: %s", full_text(error), exc_info=not isinstance(error, CalyxError))
            return error_reply(error, message)

    return answer


@app.query()
@_answering
def introduce(message: Message, context: Context) -> Message:
    """Say who this client is, how many records it declares and which code it runs.

    The sender chooses the configuration, so the count leaves only where the owner's policy says so,
    and is not even taken before that.
    """
    config, node = from_run_config(context.run_config), Node.from_settings(context.node_config)
    node.check_record_count(config)
    return Message(
        Introduction(
            client=node.name,
            declared_records=len(node.records(config)) if config.tells_record_counts else 0,
            version=software_version(),
            code_hash=code_hash(),
        ).to_content(),
        reply_to=message,
    )


@app.query("sealing")
@_answering
def accept_sealing(message: Message, context: Context) -> Message:
    """Check the key authority's offer for this run, ask the owner's policy, and keep the offer."""
    from calyx.shared.protocol.sealed.messages import SealingOffer

    config, node = from_run_config(context.run_config), Node.from_settings(context.node_config)
    node.accept_offer(SealingOffer.from_content(message.content), config)
    return Message(RecordDict(), reply_to=message)


@app.query("proposal")
@_answering
def consider_proposal(message: Message, context: Context) -> Message:
    """Say whether this client would take part in a whole run, before any of it is charged."""
    from calyx.client.proposal import consider

    config, node = from_run_config(context.run_config), Node.from_settings(context.node_config)
    consider(message.content, config, node)
    return Message(RecordDict(), reply_to=message)


@app.train()
@_answering
def train(message: Message, context: Context) -> Message:
    """Train one round on this client's records and answer with the protected update."""
    from calyx.client.round import train_round

    config, node = from_run_config(context.run_config), Node.from_settings(context.node_config)
    return Message(train_round(message.content, config, node), reply_to=message)


@app.evaluate()
@_answering
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the model on this client's records, where its owner lets the figures leave."""
    from calyx.client.evaluation import evaluate_round

    config, node = from_run_config(context.run_config), Node.from_settings(context.node_config)
    return Message(evaluate_round(message.content, config, node), reply_to=message)
