"""The key pairs of open runs: files in the authority's folder, and the last few in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

from calyx.authority.keys.key_pair import KeyPair
from calyx.shared.host.private_files import private_directory

MAX_KEYS_IN_MEMORY = 8


class KeyStore:
    """Key pairs by run.

    Args:
        directory: of their files, made 0700 if missing.
        passphrase: encrypts each file; None for none.

    Raises:
        EncryptionError: the folder is open to others.
    """

    def __init__(self, directory: Path, passphrase: bytes | None) -> None:
        private_directory(directory)
        self._directory, self._passphrase = directory, passphrase
        self._keys: dict[str, KeyPair] = {}

    def add(self, run: str, keys: KeyPair) -> None:
        """Write the key pair of a new run."""
        # A file of a run that is not in the log was left by a crash; no one has that key.
        self._path(run).unlink(missing_ok=True)
        keys.save(self._path(run), self._passphrase)
        self._keep(run, keys)

    def get(self, run: str) -> KeyPair | None:
        """The key pair of an open run; None if its file is gone.

        Raises:
            EncryptionError: the file is damaged, or the passphrase is wrong.
        """
        keys = self._keys.get(run)
        if keys is None:
            path = self._path(run)
            if not path.exists():
                return None
            keys = KeyPair.load(path, self._passphrase)
        self._keep(run, keys)
        return keys

    def destroy(self, run: str) -> None:
        """Delete the key pair of a closed run; one that is already gone is not an error."""
        self._keys.pop(run, None)
        self._path(run).unlink(missing_ok=True)

    def forget(self) -> None:
        """Drop all key pairs from memory."""
        self._keys.clear()

    def _keep(self, run: str, keys: KeyPair) -> None:
        self._keys.pop(run, None)
        self._keys[run] = keys
        if len(self._keys) > MAX_KEYS_IN_MEMORY:
            del self._keys[next(iter(self._keys))]  # the one not used for longest

    def _path(self, run: str) -> Path:
        # Hashed, because a run's name may hold characters that mean something in a path.
        return self._directory / f"{hashlib.sha256(run.encode()).hexdigest()[:32]}.key"
