"""What opening a run gives: the public context, and an admission for each contributor."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from calyx.authority.keys.key_pair import KeyPair
from calyx.authority.log.events import Opened
from calyx.authority.release import State
from calyx.shared.encryption import context_hash
from calyx.shared.protocol.authority.interface import Opening
from calyx.shared.protocol.sealed.admission import Admission


def opening_of(terms: Opened, keys: KeyPair, state: State, identity: Ed25519PrivateKey) -> Opening:
    """The opening of a run with settled terms, sealed and signed each time.

    Args:
        terms: of the run.
        keys: its key pair.
        state: which contributors are enrolled.
        identity: signs the admissions.
    """
    context = keys.public_context()
    tag_keys = keys.tag_keys(terms.contributors)
    admissions = {}
    for name in terms.contributors:
        admission = Admission(
            run=terms.run,
            contributor=name,
            parameters_digest=terms.parameters_digest,
            context_hash=context_hash(context),
            min_contributors=terms.min_contributors,
            plan_digest=terms.plan_digest,
            config_digest=terms.config_digest,
            is_tagged=terms.is_tagged,
        )
        seal_key = bytes.fromhex(state.enrolled[name].seal_key)
        admissions[name] = admission.issue(identity, seal_key, tag_keys[name])
    verify_keys = {
        name: bytes.fromhex(state.enrolled[name].verify_key) for name in terms.contributors
    }
    return Opening(context, admissions, verify_keys)
