"""Secret keys: what leaves a `KeyPair`, and the files they lie in."""

from __future__ import annotations

import copy
import os
import pickle
import stat
from pathlib import Path

import numpy as np
import pytest
import tenseal as ts

from calyx.authority.keys.key_pair import KeyPair
from calyx.authority.keys.secret_file import read_secret, write_secret
from calyx.shared.encryption import PublicSealer, derive_parameters
from calyx.shared.errors import EncryptionError
from calyx.shared.host.private_files import private_directory

PARAMETERS = derive_parameters(scheme="bfv", contributors=4, value_bound=100, length=50)


@pytest.fixture(scope="module")
def pair() -> KeyPair:
    return KeyPair.generate(PARAMETERS)


def secret_bytes(pair: KeyPair) -> bytes:
    """The secret key alone, as TenSEAL writes it."""
    context = pair._context.serialize(
        save_public_key=False, save_secret_key=True, save_galois_keys=False, save_relin_keys=False
    )
    without = pair._context.serialize(
        save_public_key=False, save_secret_key=False, save_galois_keys=False, save_relin_keys=False
    )
    assert len(context) > len(without) + 10_000
    return context[-20_000:]


def test_what_is_sealed_with_the_public_key_the_pair_decrypts(pair: KeyPair) -> None:
    values = np.arange(50)
    sealed = PublicSealer(PARAMETERS, pair.public_context()).seal(values)
    slots = pair.decrypt(pair.read(sealed.chunks))
    assert slots.shape == (1, PARAMETERS.slots_per_chunk)
    assert (slots[0, :50] == values).all()


def test_the_public_context_holds_no_secret_key(pair: KeyPair) -> None:
    public = pair.public_context()
    assert not ts.context_from(public).is_private()
    secret = secret_bytes(pair)
    windows = [secret[i : i + 16] for i in range(0, len(secret) - 16, 512)]
    assert not any(window in public for window in windows)
    assert pair._tag_secret not in public


def test_the_public_context_keeps_its_bytes_while_the_pair_is_used(
    pair: KeyPair, tmp_path: Path
) -> None:
    before = pair.public_context()
    sealed = PublicSealer(PARAMETERS, before).seal(np.zeros(50, dtype=np.int64))
    pair.decrypt(pair.read(sealed.chunks))
    assert pair.public_context() == before
    pair.save(tmp_path / "x.key", None)
    assert KeyPair.load(tmp_path / "x.key", None).public_context() == before


def test_a_key_pair_shows_nothing(pair: KeyPair) -> None:
    assert repr(pair) == str(pair) == "KeyPair(bfv, secret not shown)"
    assert not hasattr(pair, "__dict__")
    assert pair._tag_secret.hex() not in repr(pair.tag_keys(["a"]))


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_key_pair_is_neither_pickled_nor_copied(leave: object, pair: KeyPair) -> None:
    with pytest.raises(EncryptionError, match="neither pickled nor copied"):
        leave(pair)  # type: ignore[operator]
    with pytest.raises(EncryptionError):
        pair.__getstate__()


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
def test_a_saved_pair_decrypts_after_loading(
    pair: KeyPair, tmp_path: Path, passphrase: bytes | None
) -> None:
    pair.save(tmp_path / "x.key", passphrase)
    loaded = KeyPair.load(tmp_path / "x.key", passphrase)
    values = np.arange(-25, 25)
    sealed = PublicSealer(PARAMETERS, pair.public_context()).seal(values)
    slots = loaded.decrypt(loaded.read(sealed.chunks))
    assert (slots[0, :50] == values).all()
    assert loaded.tag_keys(["a", "b"]) == pair.tag_keys(["a", "b"])


def test_a_passphrase_encrypts_the_file(pair: KeyPair, tmp_path: Path) -> None:
    secret = secret_bytes(pair)[5000:5016]
    pair.save(tmp_path / "open.key", None)
    pair.save(tmp_path / "sealed.key", b"correct horse")
    assert secret in (tmp_path / "open.key").read_bytes()
    sealed = (tmp_path / "sealed.key").read_bytes()
    assert secret not in sealed and pair._tag_secret not in sealed and b"horse" not in sealed
    pair.save(tmp_path / "again.key", b"correct horse")
    assert (tmp_path / "again.key").read_bytes()[9:] != sealed[9:]


def test_a_wrong_or_missing_passphrase_is_a_clear_error(tmp_path: Path) -> None:
    write_secret(tmp_path / "x.key", b"payload", b"right")
    with pytest.raises(EncryptionError, match=r"the passphrase does not open .*x\.key"):
        read_secret(tmp_path / "x.key", b"wrong")
    with pytest.raises(EncryptionError, match="needs its passphrase"):
        read_secret(tmp_path / "x.key", None)
    with pytest.raises(EncryptionError, match="passphrase is empty"):
        write_secret(tmp_path / "y.key", b"payload", b"")
    assert not (tmp_path / "y.key").exists()


@pytest.mark.parametrize("passphrase", [None, b"right"])
def test_damage_anywhere_in_a_secret_file_is_found(
    tmp_path: Path, passphrase: bytes | None
) -> None:
    path = tmp_path / "x.key"
    write_secret(path, b"payload", passphrase)
    whole = path.read_bytes()
    steps = range(len(whole)) if passphrase is None else range(0, len(whole), 11)
    for at in steps:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(EncryptionError):
            read_secret(path, passphrase)
    for size in (0, 8, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(EncryptionError):
            read_secret(path, passphrase)


def test_a_secret_file_is_never_readable_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with no umask, and looked at from the moment each file is made."""
    modes: list[int] = []
    original = os.open

    def watching(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        file = original(path, flags, mode, **more)
        modes.append(stat.S_IMODE(os.fstat(file).st_mode) if flags & os.O_CREAT else 0o600)
        return file

    monkeypatch.setattr(os, "open", watching)
    before = os.umask(0)
    try:
        write_secret(tmp_path / "x.key", b"payload", None)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.key").stat().st_mode) == 0o600
    assert set(modes) == {0o600}
    assert [p.name for p in tmp_path.iterdir()] == ["x.key"]


def test_a_secret_file_is_never_replaced(tmp_path: Path) -> None:
    write_secret(tmp_path / "x.key", b"first", None)
    with pytest.raises(EncryptionError, match="never replaced"):
        write_secret(tmp_path / "x.key", b"second", None)
    assert read_secret(tmp_path / "x.key", None) == b"first"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_a_secret_file_that_is_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "x.key"
    write_secret(path, b"payload", None)
    path.chmod(mode)
    with pytest.raises(EncryptionError, match="read by other users\nhint: run: chmod 600"):
        read_secret(path, None)


def test_a_secret_file_behind_a_link_is_refused(tmp_path: Path) -> None:
    write_secret(tmp_path / "x.key", b"payload", None)
    (tmp_path / "link.key").symlink_to(tmp_path / "x.key")
    with pytest.raises(EncryptionError, match="cannot be opened"):
        read_secret(tmp_path / "link.key", None)


def test_a_folder_that_is_open_to_others_is_refused(tmp_path: Path) -> None:
    private_directory(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    (tmp_path / "new").chmod(0o750)
    with pytest.raises(EncryptionError, match="chmod 700"):
        private_directory(tmp_path / "new")


def test_plain_sums_have_no_key() -> None:
    parameters = derive_parameters(scheme="none", contributors=4, value_bound=100, length=50)
    with pytest.raises(EncryptionError, match="no key"):
        KeyPair.generate(parameters)


def test_a_file_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    write_secret(tmp_path / "x.key", b"\0\0\0\2ab", None)
    with pytest.raises(EncryptionError, match="not hold a readable key"):
        KeyPair.load(tmp_path / "x.key", None)
