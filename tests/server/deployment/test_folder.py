"""Setting up a server, and which devices may take part; nothing is started."""

from __future__ import annotations

import datetime
import io
import json
import re
import stat
import zipfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from calyx.server.deployment import handover, launch, setup, submission
from calyx.server.deployment.enrolment import ApprovedNode, approved_nodes, record_limits, revoke
from calyx.server.deployment.enrolment import approve as approve_stated
from calyx.server.deployment.folder import ServerFolder
from calyx.server.deployment.signing import instruction_key
from calyx.shared.config.load import build, from_settings
from calyx.shared.errors import ConfigError, EnrolmentError, UsageError
from calyx.shared.host import certificates
from calyx.shared.protocol.enrolment import make_request, read_request
from calyx.shared.protocol.sealed.contributor_keys import ContributorKeys

LOCAL = ("secure_aggregation.scheme=none", "privacy.noise=local")


@pytest.fixture
def folder(tmp_path: Path) -> ServerFolder:
    setup.init(tmp_path / "server", hosts=["fl.example.org", "192.0.2.7"])
    return ServerFolder(tmp_path / "server")


class Keys:
    """A device's keys."""

    def __init__(self) -> None:
        self.node = ec.generate_private_key(ec.SECP384R1())
        self.signing, self.sealing = Ed25519PrivateKey.generate(), X25519PrivateKey.generate()

    def request(self, name: str = "clinic") -> str:
        contributor = ContributorKeys.of(name, self.signing, self.sealing)
        return make_request(name, self.node, self.signing, contributor)


def approve(folder: ServerFolder, request: str, max_records: int | None = None) -> ApprovedNode:
    """Approve it with the fingerprint that its owner sees."""
    fingerprint = read_request(request).fingerprint
    return approve_stated(folder, request, fingerprint=fingerprint, max_records=max_records)


def test_folder_is_for_its_owner_alone(folder: ServerFolder) -> None:
    for path in [folder.directory, *folder.directory.rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    assert {path.name for path in folder.for_devices.iterdir()} == {"ca.pem", "instructions.pub"}
    assert b"PRIVATE" not in (folder.for_devices / "ca.pem").read_bytes()
    public = bytes.fromhex((folder.for_devices / "instructions.pub").read_text())
    assert instruction_key(folder).public_key().public_bytes_raw() == public


def test_certificate_is_for_the_names_given_and_this_machine(folder: ServerFolder) -> None:
    names = names_of(folder)
    assert set(names) == {"fl.example.org", "192.0.2.7", "localhost", "127.0.0.1", "::1"}
    setup.renew(folder.directory, ["more.example.org"])
    assert set(names_of(folder)) == {*names, "more.example.org"}


def names_of(folder: ServerFolder) -> list[str]:
    certificate = x509.load_pem_x509_certificate(folder.certificate_path.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return [str(name.value) for name in found.value]


def test_server_is_never_overwritten(folder: ServerFolder) -> None:
    with pytest.raises(UsageError, match="already holds a server"):
        setup.init(folder.directory)


def test_it_listens_on_this_machine_unless_told_otherwise(folder: ServerFolder) -> None:
    assert folder.settings().listen == "127.0.0.1"
    text = folder.proxy_path.read_text()
    places = re.findall(r"location (.*) \{\n.*\n(?:.*\n)*?\s+proxy_pass", text)
    assert len(places) == text.count("proxy_pass") == 3
    assert all(re.match(r"(=|~ \^)\s?/v1/fleet/[(a-z]", place) for place in places)
    assert "location / { return 404; }" in text


def test_expired_certificate_stops_the_start_with_what_to_do(
    folder: ServerFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Past(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Past:
            return cls(2020, 1, 1, tzinfo=tz)

    with monkeypatch.context() as patch:
        patch.setattr(certificates, "datetime", Past)
        setup.renew(folder.directory)
    with pytest.raises(
        EnrolmentError, match="(?s)expired at 2020-12-31 .*hint: .* calyx server renew"
    ):
        launch.up(folder.directory)


def test_request_is_good_for_one_approval(folder: ServerFolder) -> None:
    keys = Keys()
    request = keys.request()
    assert approve(folder, request).name == "clinic"
    with pytest.raises(EnrolmentError, match=r"(?s)was already used, .* enroll DIR --renew"):
        approve(folder, request)
    assert len(approve(folder, keys.request()).nonces) == 2
    assert list(approved_nodes(folder)) == ["clinic"]


def test_request_with_another_fingerprint_is_not_approved(folder: ServerFolder) -> None:
    mine, forged = Keys().request(), Keys().request()
    fingerprint = read_request(mine).fingerprint
    with pytest.raises(EnrolmentError, match="is not the request of 'clinic' with the") as told:
        approve_stated(folder, forged, fingerprint=fingerprint)
    assert read_request(forged).fingerprint not in str(told.value)
    for part in ("", fingerprint[:19], "y"):
        with pytest.raises(EnrolmentError, match="32 hexadecimal digits"):
            approve_stated(folder, mine, fingerprint=part)
    assert approved_nodes(folder) == {}
    spoken = fingerprint.upper().replace("-", " ")
    assert approve_stated(folder, mine, fingerprint=spoken).fingerprint == fingerprint


def test_no_two_devices_have_names_that_look_alike(folder: ServerFolder) -> None:
    approve(folder, Keys().request("clinic-0"))
    for name in ("Clinic-0", "clinic-O", "clinic_0", "clínic-0"):
        with pytest.raises(EnrolmentError, match="looks like 'clinic-0'"):
            approve(folder, Keys().request(name))
    revoke(folder, "clinic-0")
    with pytest.raises(EnrolmentError, match="looks like 'clinic-0'"):
        approve(folder, Keys().request("clinic-o"))
    assert approve(folder, Keys().request("clinic-1")).name == "clinic-1"


def test_record_limit_is_the_servers_unless_a_device_has_its_own(folder: ServerFolder) -> None:
    first = Keys()
    approve(folder, first.request("first"))
    approve(folder, Keys().request("second"), max_records=70)
    assert record_limits(folder) == {"first": 100_000, "second": 70}
    settings = folder.settings_path.read_text()
    folder.settings_path.write_text(settings.replace("100000", "500"))
    assert record_limits(folder) == {"first": 500, "second": 70}
    approve(folder, first.request("first"), max_records=900)
    assert record_limits(folder) == {"first": 900, "second": 70}
    with pytest.raises(UsageError, match="max_records is 0"):
        approve(folder, first.request("first"), max_records=0)


def test_a_name_belongs_to_its_first_keys_for_good(folder: ServerFolder) -> None:
    keys = Keys()
    approve(folder, keys.request())
    with pytest.raises(EnrolmentError, match="is the name of another device"):
        approve(folder, Keys().request())
    with pytest.raises(EnrolmentError, match="is that of 'clinic'"):
        approve(folder, keys.request("other"))
    revoke(folder, "clinic")
    with pytest.raises(EnrolmentError, match="was revoked at"):
        approve(folder, keys.request())
    with pytest.raises(UsageError, match="name one that was: clinic"):
        revoke(folder, "clinik")


def test_run_needs_a_server_that_is_up(folder: ServerFolder) -> None:
    config = build(from_settings(["training.rounds=1"]))
    with pytest.raises(UsageError, match="is not up\nhint: start it with"):
        handover.submit(folder, "one", config, {}, resume=False)
    with pytest.raises(UsageError, match="a run 'one' already exists"):
        handover.submit(folder, "one", config, {}, resume=False)


def test_sealed_run_needs_an_authority(folder: ServerFolder) -> None:
    sealed = ["secure_aggregation.scheme=bfv", "privacy.noise=distributed"]
    config = build(from_settings(["training.rounds=1", *sealed]))
    with pytest.raises(ConfigError, match="calyx server authority"):
        handover.submit(folder, "one", config, {}, resume=False)


@pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "x" * 101, "line\nbreak"])
def test_names_of_runs_that_could_leave_their_folder_are_refused(
    folder: ServerFolder, name: str
) -> None:
    with pytest.raises(UsageError):
        folder.run_dir(name)


def test_a_name_that_no_folder_can_have_is_refused(folder: ServerFolder) -> None:
    assert folder.run_dir("ä" * 100)
    with pytest.raises(UsageError, match="has at most 255 bytes"):
        folder.run_dir("漢" * 100)


def test_a_renamed_run_is_refused_under_its_new_name(folder: ServerFolder) -> None:
    """Devices and authority know the old name; the new name would be charged again."""
    folder.run_dir("one").mkdir(parents=True)
    submission.store(folder, submission.Submission("one", "stopped", 1, 1))
    folder.run_dir("one").rename(folder.run_dir("two"))
    config = build(from_settings(["training.rounds=1", *LOCAL]))
    with pytest.raises(UsageError, match="belongs to the run 'one' and was renamed"):
        handover.submit(folder, "two", config, {}, resume=True)
    assert submission.submissions(folder) == []


def test_two_commands_cannot_hand_over_one_run(folder: ServerFolder) -> None:
    folder.run_dir("one").mkdir(parents=True)
    submission.store(folder, submission.Submission("one", "stopped", 1, 1))
    config = build(from_settings(["training.rounds=1", *LOCAL]))
    with (
        submission.held(folder.run_dir("one")),
        pytest.raises(UsageError, match="another calyx command writes"),
    ):
        handover.submit(folder, "one", config, {}, resume=True)
    assert submission.read_submission(folder, "one").state == "stopped"


def test_bundle_given_to_flower_holds_a_name_and_no_code() -> None:
    content = handover._bundle("my-run", "ticket")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".py")]
    assert handover.run_of_bundle(content) == ("my-run", "ticket")
    assert handover.run_of_bundle(b"garbage") == ("", "")


def test_status_of_a_server_that_is_down_is_complete(folder: ServerFolder) -> None:
    approve(folder, Keys().request())
    found = launch.status_of(folder.directory)
    assert not found["running"] and found["devices"][0]["status"] == "unknown"
    json.dumps(found)


def test_sealed_updates_that_no_device_could_hand_over_are_refused_beforehand() -> None:
    sealed = build(from_settings(["secure_aggregation.scheme=bfv", "federation.clients=10"]))
    handover.check_upload(sealed, 2_000_000)
    with pytest.raises(ConfigError, match="sealed update of 5,000,000 values"):
        handover.check_upload(sealed, 5_000_000)
    handover.check_upload(build(from_settings([])), 5_000_000)


def test_authority_at_an_ipv6_address_without_brackets_is_refused_with_what_to_write(
    tmp_path: Path,
) -> None:
    setup.init(tmp_path / "server", listen="[::1]")
    assert ServerFolder(tmp_path / "server").local_address == "[::1]:9440"
    files = tmp_path / "for-server"
    files.mkdir()
    for name in ("root.pem", "server.pem", "server-key.pem"):
        (files / name).write_bytes(b"pem")
    with pytest.raises(ConfigError, match=r"write \[::1\]:9443"):
        setup.use_authority(tmp_path / "server", "::1:9443", files)
    setup.use_authority(tmp_path / "server", "[::1]:9443", files)
    assert ServerFolder(tmp_path / "server").settings().authority == "[::1]:9443"
