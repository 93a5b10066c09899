"""Members, terms, receipts and requests for tests of the release rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from calyx.authority.log.events import Granted, Opened, Refused
from calyx.authority.release import State, apply, decide, enrol
from calyx.shared.protocol.authority.interface import Refusal, ReleaseRequest
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys
from calyx.shared.protocol.sealed.receipts import Receipt

NAMES = [f"device-{i}" for i in range(6)]
SIGNING = {name: Ed25519PrivateKey.generate() for name in NAMES}
KEYS = {n: ContributorKeys.of(n, k, X25519PrivateKey.generate()) for n, k in SIGNING.items()}
PARAMETERS, SUM = "a" * 64, "5" * 64
PLAN_DIGEST, CONFIG_DIGEST = "1" * 64, "c" * 64
MINIMUM = 3


def terms(run: str = "run", **changes: object) -> Opened:
    names = tuple(NAMES[:5])
    plain = Opened(run, PARAMETERS, MINIMUM, 5, names, True, PLAN_DIGEST, CONFIG_DIGEST)
    return replace(plain, **changes)  # type: ignore[arg-type]


def receipt(name: str, round: int = 1, run: str = "run", upload: int = 0) -> Receipt:
    number = 1 + NAMES.index(name) + 10 * upload
    unsigned = Receipt(run, round, name, PARAMETERS, f"{number:064x}", f"{number:032x}")
    return unsigned.signed(SIGNING[name])


def request(names: Sequence[str], round: int = 1, run: str = "run") -> ReleaseRequest:
    receipts = tuple(receipt(name, round, run) for name in names)
    return ReleaseRequest(run, round, len(receipts), receipts, SUM)


def opened_state() -> State:
    state = State()
    for keys in KEYS.values():
        enrolled = enrol(state, keys)
        assert enrolled is not None
        state = apply(state, enrolled)
    return apply(state, terms())


def reason(state: State, asked: ReleaseRequest) -> Refusal:
    decision = decide(state, asked)
    assert isinstance(decision, Refused), decision
    return Refusal(decision.reason)


def granted(state: State, asked: ReleaseRequest) -> State:
    decision = decide(state, asked)
    assert isinstance(decision, Granted), decision
    return apply(state, decision)
