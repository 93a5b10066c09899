"""The gRPC service over TLS on 127.0.0.1, in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from calyx.authority import certificates
from calyx.authority.certificates import CertificateSet
from calyx.authority.log.events import Refused
from calyx.authority.log.log import verify
from calyx.authority.service import AuthorityServer
from calyx.shared.encryption import derive_parameters
from calyx.shared.errors import CalyxError, ReleaseRefused, RunError
from calyx.shared.protocol.authority import authority_pb2 as pb
from calyx.shared.protocol.authority import authority_pb2_grpc
from calyx.shared.protocol.authority.client import (
    RemoteAuthority,
    _read_culprits,
    culprits_to_bytes,
)
from calyx.shared.protocol.authority.interface import Refusal, ReleaseRequest
from tests.authority.releases import CONFIG_DIGEST, PLAN_DIGEST
from tests.authority.served_authority import HOST, ServedAuthority


def test_a_sum_is_released_over_the_network(
    remote: RemoteAuthority, far_run: Any, total_of: Callable[..., Any], served: ServedAuthority
) -> None:
    uploads = far_run.uploads(1)
    request, chunks = far_run.request(1, uploads)
    released = remote.release(request, chunks)
    assert released.values.dtype == np.int64
    assert (released.values == total_of(uploads)).all()
    again = remote.release(request, chunks)
    assert (again.values == released.values).all()
    assert again.log_index == released.log_index + 1
    remote.close_run("run-1")
    with pytest.raises(ReleaseRefused, match=r"^closed-run"):
        remote.release(request, chunks)


def test_a_refusal_arrives_with_its_reason(remote: RemoteAuthority, far_run: Any) -> None:
    request, chunks = far_run.request(1, far_run.uploads(1, count=2))
    with pytest.raises(ReleaseRefused) as caught:
        remote.release(request, chunks)
    assert Refusal.of(caught.value) == Refusal.TOO_FEW
    assert str(caught.value) == "too-few: 2 contributors, run 'run-1' needs 3"
    with pytest.raises(ReleaseRefused, match=r"^terms: run 'run-1' was opened on other terms"):
        names = [device.name for device in far_run.devices]
        remote.open_run("run-1", far_run.parameters, 4, names, PLAN_DIGEST, CONFIG_DIGEST)
    with pytest.raises(ReleaseRefused, match=r"^unknown-run"):
        remote.close_run("another")


def test_a_refusal_names_all_its_culprits_over_the_network(
    served: ServedAuthority, remote: RemoteAuthority, far_run: Any, total_of: Callable[..., Any]
) -> None:
    """Without them the round still has its one release."""
    uploads = far_run.uploads(1, count=5)
    gone = [upload.receipt.contributor for upload in uploads[:2]]
    for name in gone:
        served.authority.enrolments.revoke(name)
    with pytest.raises(ReleaseRefused, match="revoked") as caught:
        remote.release(*far_run.request(1, uploads))
    assert sorted(caught.value.culprits) == sorted(gone)
    released = remote.release(*far_run.request(1, uploads[2:]))
    assert (released.values == total_of(uploads[2:])).all()


def test_a_refusal_that_is_nobodys_fault_names_nobody(
    remote: RemoteAuthority, far_run: Any
) -> None:
    with pytest.raises(ReleaseRefused, match="too-few") as caught:
        remote.release(*far_run.request(1, far_run.uploads(1, count=2)))
    assert caught.value.culprits == ()


def test_many_culprits_are_named_as_far_as_there_is_room() -> None:
    names = [f"gerät {number}" for number in range(2000)]
    told = _read_culprits(culprits_to_bytes(names))
    assert told == names[: len(told)] and len(told) >= 100
    assert _read_culprits(culprits_to_bytes(["a", "ü"])) == ["a", "ü"]


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"7", b'{"a": 1}', b"[1, null]"])
def test_what_is_no_list_of_names_names_nobody(text: bytes) -> None:
    assert _read_culprits(text) == []


def test_a_sum_that_is_none_is_refused_over_the_network(
    remote: RemoteAuthority, far_run: Any
) -> None:
    uploads = far_run.uploads(1)
    request, chunks = far_run.request(1, uploads, far_run.add(uploads[:2]))
    request = ReleaseRequest("run-1", 1, 3, request.receipts, request.sum_hash)
    with pytest.raises(ReleaseRefused, match=r"^proof"):
        remote.release(request, chunks)


def test_ciphertexts_altered_on_their_way_are_refused_and_logged(
    remote: RemoteAuthority, far_run: Any, folder: Path
) -> None:
    request, chunks = far_run.request(1, far_run.uploads(1))
    altered = (chunks[0][:-1] + bytes([chunks[0][-1] ^ 1]), *chunks[1:])
    with pytest.raises(ReleaseRefused, match=r"^malformed"):
        remote.release(request, altered)
    last = verify(folder / "releases.jsonl").entries[-1].event
    assert isinstance(last, Refused) and last.reason == "malformed" and last.contributors == 3


def test_an_unexpected_fault_tells_the_other_side_nothing(
    served: ServedAuthority,
    remote: RemoteAuthority,
    far_run: Any,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The key file is damaged: its path is our business, not the server's."""
    served.authority._keys.forget()
    for path in (folder / "keys").iterdir():
        path.write_bytes(b"damaged")
    with caplog.at_level(logging.ERROR), pytest.raises(RunError) as caught:
        remote.release(*far_run.request(1, far_run.uploads(1)))
    assert not isinstance(caught.value, ReleaseRefused)
    assert "INTERNAL: internal fault of the key authority" in str(caught.value)
    assert "Traceback" not in str(caught.value) and str(folder) not in str(caught.value)
    assert str(folder) in caplog.text


def test_health_is_served(served: ServedAuthority, remote: RemoteAuthority) -> None:
    assert remote.health()
    with served.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        ask = health_pb2.HealthCheckRequest(service="calyx.authority.v1.KeyAuthority")
        assert stub.Check(ask, timeout=10).status == health_pb2.HealthCheckResponse.SERVING
    served.server.stop()
    assert not remote.health()


def test_strangers_are_not_let_in(served: ServedAuthority, tls: CertificateSet) -> None:
    """Another root, on either side; the server's role with the authority's own certificate."""
    other = certificates.make(["localhost", HOST], days=1)
    for client in (
        served.connect(own=other.server, timeout_s=0.5),
        served.connect(root=other.root, timeout_s=0.5),
        served.connect(own=tls.authority, timeout_s=0.5),
    ):
        with client:
            assert not client.health()
            with pytest.raises(RunError, match=r"did not answer within 0\.5 s"):
                client.close_run("run-1")
    anonymous = grpc.ssl_channel_credentials(tls.root)
    for channel in (
        grpc.secure_channel(served.target, anonymous),
        grpc.insecure_channel(served.target),
    ):
        with channel, pytest.raises(grpc.RpcError):
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)


def test_a_port_that_is_taken_is_a_clear_error(
    served: ServedAuthority, tls: CertificateSet
) -> None:
    with pytest.raises(CalyxError, match=f"cannot listen on 127.0.0.1:{served.server.port}"):
        AuthorityServer(served.authority, HOST, served.server.port, tls.root, tls.authority)


class Recorder(authority_pb2_grpc.KeyAuthorityServicer):
    """In between: forwards every call and keeps the bytes that the authority answers."""

    def __init__(self, stub: authority_pb2_grpc.KeyAuthorityStub) -> None:
        self._stub, self.answers = stub, bytearray()

    def _kept(self, parts: Iterator[Any]) -> Iterator[Any]:
        for part in parts:
            self.answers += part.SerializeToString()
            yield part

    def OpenRun(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        yield from self._kept(self._stub.OpenRun(request, timeout=20.0, wait_for_ready=True))

    def Release(self, request_iterator: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        yield from self._kept(
            self._stub.Release(request_iterator, timeout=20.0, wait_for_ready=True)
        )


def test_no_message_of_the_authority_holds_a_secret(
    served: ServedAuthority, far_run: Any, tls: CertificateSet, total_of: Callable[..., Any]
) -> None:
    """What it sends for a whole run, against every secret it has."""
    with served.channel() as channel:
        recorder = Recorder(authority_pb2_grpc.KeyAuthorityStub(channel))
        pool = ThreadPoolExecutor(4)
        between = grpc.server(pool)
        authority_pb2_grpc.add_KeyAuthorityServicer_to_server(recorder, between)
        own = (tls.authority.private_key, tls.authority.certificate)
        port = between.add_secure_port(
            f"{HOST}:0", grpc.ssl_server_credentials([own], tls.root, require_client_auth=True)
        )
        between.start()
        with RemoteAuthority(
            f"{HOST}:{port}", tls.root, tls.server.certificate, tls.server.private_key
        ) as client:
            names = [device.name for device in far_run.devices]
            opening = client.open_run(
                "run-1", far_run.parameters, 3, names, PLAN_DIGEST, CONFIG_DIGEST
            )
            uploads = far_run.uploads(1)
            released = client.release(*far_run.request(1, uploads))
        between.stop(None).wait()
        pool.shutdown()
    assert (released.values == total_of(uploads)).all()
    answers = bytes(recorder.answers)
    assert opening.public_context in answers and len(answers) > 200_000
    pair = served.authority._keys.get("run-1")
    context = pair._context.serialize(
        save_public_key=False, save_secret_key=True, save_galois_keys=False, save_relin_keys=False
    )
    secret = context[-20_000:]
    tag_keys = [far_run.tag_keys(device) for device in far_run.devices]
    secrets = [
        *(secret[i : i + 16] for i in range(0, len(secret) - 16, 1000)),
        pair._tag_secret,
        served.authority._identity.private_bytes_raw(),
        *(keys.pads_key for keys in tag_keys),
        tag_keys[0].weights_key,
    ]
    assert not [s for s in secrets if s in answers or s.hex().encode() in answers]


def test_generated_code_is_that_of_the_proto_file(tmp_path: Path) -> None:
    """A forgotten regeneration shows as a descriptor that differs."""
    protoc = pytest.importorskip("grpc_tools.protoc")
    root, target = Path(__file__).resolve().parents[2], tmp_path / "set"
    source = "calyx/shared/protocol/authority/authority.proto"
    assert protoc.main(["protoc", f"-I{root}", f"--descriptor_set_out={target}", source]) == 0
    compiled = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file[0]
    for field in (field for message in compiled.message_type for field in message.field):
        field.ClearField("json_name")
    assert compiled == descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)


def test_a_request_of_many_contributors_fits_the_message_limits(
    remote: RemoteAuthority, served: ServedAuthority, open_run: Callable[..., Any]
) -> None:
    names: Sequence[str] = [f"{i:05d}-{'x' * 90}" for i in range(5_000)]
    parameters = derive_parameters(scheme="bfv", contributors=5_000, value_bound=100, length=50)
    with pytest.raises(ReleaseRefused, match=r"^not-enrolled"):
        remote.open_run("large", parameters, 3, names, PLAN_DIGEST, CONFIG_DIGEST)
