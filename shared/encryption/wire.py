"""Reading TenSEAL's bytes from other parties: strictly, and before its C++ code relies on them.

TenSEAL 0.3 believes what the bytes say about themselves. A vector whose stated size exceeds its
ciphertext makes decryption read past the end of memory, and some bytes in the place of
encryption parameters end the process with an uncaught exception. Hence:

* a chunk must have exactly the layout that TenSEAL writes for one full ciphertext. What is
  inside, SEAL checks well (level, ring, residues below q, decompressed size), except that it
  takes ciphertexts of other than two polynomials; those are refused here;
* of a public context only the public key is used. The encryption parameters are built from our
  own `SealingParameters`, never from the bytes; SEAL then refuses a key that is of others. A
  context that also holds a secret key is refused before any of it is loaded.
"""

from __future__ import annotations

import struct
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import tenseal as ts
from tenseal import sealapi

from calyx.shared.encryption.parameters import SealingParameters
from calyx.shared.errors import EncryptionError

# Magic number, header size, version, compression, reserved, size with header.
_SEAL_HEADER = struct.Struct("<HBBBBHQ")
_SEAL_MAGIC, _SEAL_ZSTD = 0xA15E, 2
_VARINT, _FIXED64, _BYTES = 0, 1, 2


def export_public_context(context: ts.Context) -> bytes:
    """The bytes that other parties get of a key pair: parameters and public key, nothing else."""
    data: bytes = context.serialize(
        save_public_key=True,
        save_secret_key=False,
        save_galois_keys=False,
        save_relin_keys=False,
    )
    return data


def open_public_context(data: bytes, parameters: SealingParameters) -> ts.Context:
    """Make a TenSEAL context, with one thread, from an exported public context.

    Raises:
        EncryptionError: it holds a secret key, is too large, is malformed, or its public key is
            of other parameters.
    """
    if len(data) > parameters.max_context_bytes:
        raise EncryptionError(
            f"the public context has {len(data)} bytes; {parameters.max_context_bytes} are allowed",
            hint="export it without Galois and relinearisation keys",
        )
    outer = _message(data, "public context")
    if 3 in outer:
        raise EncryptionError(
            "the context received holds a secret key and is not used",
            hint="tell the key authority's owner that the key is compromised",
        )
    inner = _message(outer.get(2, b""), "public context")
    key = inner.get(1, b"")
    if set(outer) != {1, 2} or not set(inner) <= {1, 2, 3} or not isinstance(key, bytes):
        raise EncryptionError("the public context is not one parameter set with one public key")
    _check_seal_object(key, "public key")
    scale = 2.0**parameters.scale_bits if parameters.scale_bits else -1.0
    public = _field(1, key) + b"\x19" + struct.pack("<d", scale)
    rebuilt = _field(1, encryption_parameters(parameters)) + _field(2, public)
    try:
        context = ts.Context.load(rebuilt, n_threads=1)
    except Exception as error:  # TenSEAL raises RuntimeError, ValueError and others
        raise EncryptionError(
            f"the public context cannot be used ({_line(error)}): it is corrupted or belongs to "
            "other sealing parameters"
        ) from None
    if context.is_private() or not context.has_public_key():
        raise EncryptionError("the public context holds no public key")
    return context


def read_chunk(context: ts.Context, data: bytes, parameters: SealingParameters) -> Any:
    """Read one ciphertext, fresh or summed, from another party.

    Args:
        context: of these parameters, public or not.

    Returns:
        ``ts.BFVVector`` or ``ts.CKKSVector`` of exactly one full ciphertext.

    Raises:
        EncryptionError: it is anything else.
    """
    _check_chunk_layout(data, parameters)
    load = ts.bfv_vector_from if parameters.scheme == "bfv" else ts.ckks_vector_from
    try:
        vector = load(context, data)
        (ciphertext,) = vector.ciphertext()
        is_sound = (
            ciphertext.size() == 2
            and vector.size() == parameters.slots_per_chunk
            and ciphertext.parms_id() == context.seal_context().data.first_parms_id()
            and ciphertext.is_ntt_form() == (parameters.scheme == "ckks")
            and not ciphertext.is_transparent()
            and ciphertext.scale == 2.0**parameters.scale_bits
        )
    except Exception as error:  # TenSEAL raises RuntimeError, ValueError and others
        raise EncryptionError(f"a ciphertext cannot be read ({_line(error)})") from None
    if not is_sound:
        raise EncryptionError("a ciphertext is not one that contributors make, and was refused")
    return vector


@lru_cache(maxsize=16)
def encryption_parameters(parameters: SealingParameters) -> bytes:
    """SEAL's own serialisation of the encryption parameters."""
    is_bfv = parameters.scheme == "bfv"
    kind = sealapi.SCHEME_TYPE.BFV if is_bfv else sealapi.SCHEME_TYPE.CKKS
    seal = sealapi.EncryptionParameters(kind)
    degree = parameters.poly_modulus_degree
    seal.set_poly_modulus_degree(degree)
    seal.set_coeff_modulus(sealapi.CoeffModulus.Create(degree, list(parameters.coeff_mod_bits)))
    if is_bfv:
        seal.set_plain_modulus(parameters.plain_modulus)
    # The bindings write to a path only. Nothing in here is secret.
    with tempfile.TemporaryDirectory(prefix="calyx-") as folder:
        path = Path(folder) / "parameters"
        seal.save(str(path))
        return path.read_bytes()


def _check_chunk_layout(data: bytes, parameters: SealingParameters) -> None:
    if len(data) > parameters.max_chunk_bytes:
        raise EncryptionError(
            f"a ciphertext has {len(data)} bytes; {parameters.max_chunk_bytes} are allowed"
        )
    # sizes: [slots]; ciphertexts: [one]; CKKS also has its scale.
    head = _field(1, _varint(parameters.slots_per_chunk)) + b"\x12"
    tail = b""
    if parameters.scheme == "ckks":
        tail = b"\x19" + struct.pack("<d", 2.0**parameters.scale_bits)
    if not data.startswith(head) or not data.endswith(tail):
        raise EncryptionError("a ciphertext does not hold exactly one full chunk")
    size, start = _read_varint(data, len(head))
    if start + size + len(tail) != len(data):
        raise EncryptionError("a ciphertext is truncated or is followed by other data")
    _check_seal_object(data[start : start + size], "ciphertext")


def _check_seal_object(data: bytes, what: str) -> None:
    if len(data) < _SEAL_HEADER.size:
        raise EncryptionError(f"the {what} is truncated")
    magic, header, _, _, compression, _, size = _SEAL_HEADER.unpack_from(data)
    if (magic, header, compression) != (_SEAL_MAGIC, _SEAL_HEADER.size, _SEAL_ZSTD):
        raise EncryptionError(f"the {what} is not in SEAL's format")
    if size != len(data):
        raise EncryptionError(f"the {what} says it has {size} bytes; it has {len(data)}")


def _message(data: bytes | int, what: str) -> dict[int, bytes | int]:
    """The fields of a protobuf message, each at most once."""
    if not isinstance(data, bytes):
        raise EncryptionError(f"the {what} is malformed")
    fields: dict[int, bytes | int] = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: bytes | int
        if kind == _VARINT:
            value, at = _read_varint(data, at)
        elif kind in (_FIXED64, _BYTES):
            size, at = (8, at) if kind == _FIXED64 else _read_varint(data, at)
            value, at = data[at : at + size], at + size
        else:
            raise EncryptionError(f"the {what} is malformed")
        if at > len(data) or number in fields:
            raise EncryptionError(f"the {what} is truncated or malformed")
        fields[number] = value
    return fields


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 63, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise EncryptionError("a serialised object is truncated or malformed")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
