"""Whether this client would take part in a whole run: asked before any of it is charged.

It makes every check that a training instruction has to pass, in the same order and with the same
functions, but for all coming rounds at once, and without writing anything down. A no is an error
reply with its reason, as to an instruction (`calyx.shared.protocol.refusals`).

A yes is not binding: each instruction is checked again, and each round is charged when it comes.
"""

from __future__ import annotations

from flwr.app import RecordDict

from calyx.client.node import Node
from calyx.client.rehearsal import rehearse
from calyx.client.round import plan_fits, sealing_fits
from calyx.shared.config import Config
from calyx.shared.protocol.messages import Proposal


def consider(content: RecordDict, config: Config, node: Node) -> None:
    """Return if the answer is yes.

    Raises:
        ProtocolError: it is not a proposal.
        PolicyViolation: the run asks for less privacy than the owner allows, or its plan was made
            for other data.
        BudgetExceeded: the remaining rounds cost more than the remaining budget.
        ModelError: the model cannot be built, or not be trained with this privacy.
        DataError, LedgerError: this device's records or its ledger cannot be used.
    """
    proposal = Proposal.from_content(content)
    plan = proposal.plan
    policy = node.policy(plan)
    policy.check(config, plan)
    records = node.records(config)
    plan_fits(config, plan, records)
    size = rehearse(config, records)
    if config.is_sealed:
        sealing_fits(config, plan, size)
        node.sealing()
    with node.ledger(records) as ledger:
        # A round that was charged and not finished is among the remaining rounds as well. The plan
        # promises that many charges in all, and a client that was not asked each time has spent
        # fewer.
        charged = sum(entry.run == proposal.run for entry in ledger.entries())
        to_come = min(proposal.rounds_left, max(plan.rounds - charged, 0))
        ledger.check_affordable(proposal.run, plan.round_event, to_come, policy.budget)
