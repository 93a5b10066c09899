"""Node settings have one table, which is all that a reader can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from calyx.client import node
from calyx.server import run_settings
from calyx.server.run_settings import RunSettings
from calyx.shared.errors import ConfigError
from calyx.shared.host.node_settings import NodeSetting, NodeSettings, Scalar


class Remembering(Mapping[str, Scalar]):
    """Settings that know which of them were looked up."""

    def __init__(self, given: Mapping[str, Scalar]) -> None:
        self._given, self.read = given, set[str]()

    def __getitem__(self, name: str) -> Scalar:
        self.read.add(name)
        return self._given[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


def given(settings: tuple[NodeSetting, ...], **values: Scalar) -> Remembering:
    texts = {setting.name: f"value of {setting.name}" for setting in settings}
    return Remembering({**texts, **{k.replace("_", "-"): v for k, v in values.items()}})


def test_a_client_reads_every_setting_in_its_table() -> None:
    settings = given(node.SETTINGS, simulation_seed=3, partition_id=1)
    made = node.Node.from_settings(settings)
    assert made.is_simulated and made.name == "value of client-name"
    assert settings.read >= {setting.name for setting in node.SETTINGS} - {"batch-log", "canaries"}
    assert made.batch_log == "value of batch-log" and made.canaries_file == "value of canaries"


def test_a_server_reads_every_setting_in_its_table() -> None:
    texts = {"device_names": '{"7": "clinic-a"}', "record_limits": '{"clinic-a": 50}'}
    settings = given(run_settings.SETTINGS, workers=2, simulation_seed=3, **texts)
    made = RunSettings.read(settings, 1)
    assert settings.read == {setting.name for setting in run_settings.SETTINGS}
    assert made.device_names == {7: "clinic-a"} and made.record_limits == {"clinic-a": 50}
    assert made.simulation_seed == 3


def test_a_deployed_server_without_limits_has_none() -> None:
    made = RunSettings.read({"run": "first", "record-limits": "{}"}, 1)
    assert made.record_limits == {} and made.device_names is None
    assert RunSettings.read({}, 5).run_dir.parts == ("runs", "5")


@pytest.mark.parametrize("read", [node.Node.from_settings, lambda s: RunSettings.read(s, 1)])
def test_a_misspelt_setting_is_refused_with_the_right_name(read: object) -> None:
    misspelt = (
        {"ledgr": "l", "polic": "p"} if read == node.Node.from_settings else {"run-dirs": "r"}
    )
    with pytest.raises(ConfigError, match="did you mean"):
        read(misspelt)  # type: ignore[operator]


def test_a_name_outside_the_table_cannot_be_read() -> None:
    settings = NodeSettings({"ledger": "l"}, node.SETTINGS)
    with pytest.raises(KeyError, match="num-partitions"):
        settings.text("num-partitions")
