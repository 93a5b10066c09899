"""One schema, three ways in, and every fault told at once."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calyx.shared.config import Config
from calyx.shared.config.load import (
    ADDED_LATER,
    all_keys,
    build,
    digest,
    flatten,
    from_run_config,
    from_settings,
    from_toml,
    merge,
    to_run_config,
    to_toml,
    unflatten,
)
from calyx.shared.errors import ConfigError, Fault
from calyx.simulations.presets import resolve

SETTINGS = [
    "seed=7",
    "privacy.epsilon=3",
    "privacy.noise=none",
    "training.rounds=20",
    "training.learning_rate=0.05",
    "federation.clients=12",
    "federation.client_evaluation=true",
    "data.partition=dirichlet",
    "data.dirichlet_alpha=0.3",
    "model.name=cnn",
]

TOML = """
seed = 7
[privacy]
epsilon = 3.0
noise = "none"
[training]
rounds = 20
learning_rate = 0.05
[federation]
clients = 12
client_evaluation = true
[data]
partition = "dirichlet"
dirichlet_alpha = 0.3
[model]
name = "cnn"
"""


def faults(*layers: dict[str, Any]) -> tuple[Fault, ...]:
    with pytest.raises(ConfigError) as caught:
        build(*layers)
    assert "\n" not in str(caught.value)
    return caught.value.faults


configs = st.builds(
    lambda seed, name, rounds, rate, clients, epsilon, delta, alpha, partition, noise: build(
        {
            "seed": seed,
            "name": name,
            "training": {"rounds": rounds, "learning_rate": rate},
            "federation": {"clients": clients, "min_replies": 1},
            "privacy": {"epsilon": epsilon, "delta": delta, "noise": noise},
            "data": {"dirichlet_alpha": alpha, "partition": partition},
        }
    ),
    st.integers(0, 2**63 - 1),
    # Surrogates exist in no file and no message, a carriage return in no TOML line.
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
    st.integers(1, 10**6),
    st.floats(1e-6, 1e3),
    st.integers(1, 10**4),
    st.floats(1e-3, 1e3),
    st.floats(1e-12, 0.5),
    st.floats(1e-3, 1e3),
    st.sampled_from(["iid", "dirichlet", "shards"]),
    st.sampled_from(["none", "local"]),
)


class TestWaysIn:
    def test_file_settings_and_flat_run_config_give_the_same_object(self) -> None:
        by_settings = build(from_settings(SETTINGS))
        by_file = build(from_toml(TOML))
        flat = {
            "seed": 7,
            "privacy.epsilon": 3.0,
            "privacy.noise": "none",
            "training.rounds": 20,
            "training.learning_rate": 0.05,
            "federation.clients": 12,
            "federation.client_evaluation": True,
            "data.partition": "dirichlet",
            "data.dirichlet_alpha": 0.3,
            "model.name": "cnn",
        }
        by_run_config = from_run_config(flat)
        assert by_settings == by_file == by_run_config
        assert digest(by_settings) == digest(by_file) == digest(by_run_config)
        assert by_settings.privacy.epsilon == 3.0
        assert by_settings != Config()

    @settings(max_examples=50, deadline=None)
    @given(config=configs)
    def test_a_config_survives_both_its_forms(self, config: Config) -> None:
        assert from_run_config(to_run_config(config)) == config
        assert build(from_toml(to_toml(config))) == config

    def test_the_flat_form_holds_every_key_and_only_scalars(self) -> None:
        flat = to_run_config(Config())
        assert sorted(flat) == sorted(all_keys())
        assert {type(value) for value in flat.values()} <= {str, int, float, bool}

    def test_the_file_form_names_every_default(self) -> None:
        assert sorted(flatten(tomllib.loads(to_toml(Config())))) == sorted(all_keys())

    def test_later_layers_win_key_by_key(self) -> None:
        preset = {"privacy": {"epsilon": 3.0, "delta": 1e-6}, "seed": 1}
        over = from_settings(["privacy.epsilon=5"])
        assert merge(preset, over) == {"privacy": {"epsilon": 5, "delta": 1e-6}, "seed": 1}
        assert preset["privacy"] == {"epsilon": 3.0, "delta": 1e-6}
        config = build(preset, over)
        assert (config.privacy.epsilon, config.privacy.delta, config.seed) == (5.0, 1e-6, 1)

    @settings(max_examples=50, deadline=None)
    @given(config=configs)
    def test_flattening_can_be_undone(self, config: Config) -> None:
        nested = config.model_dump()
        assert unflatten(flatten(nested)) == nested


class TestSettings:
    @pytest.mark.parametrize(
        ("setting", "value"),
        [
            ("name=plain text", "plain text"),
            ('name="quoted"', "quoted"),
            ("name=a=b", "a=b"),
            ("name=", ""),
            (" name = spaced ", "spaced"),
            ("name=1e-3x", "1e-3x"),
            ("seed=12", 12),
            ("privacy.delta=1e-6", 1e-6),
            ("data.allow_download=true", True),
        ],
    )
    def test_a_value_is_toml_and_otherwise_text(self, setting: str, value: object) -> None:
        (read,) = flatten(from_settings([setting])).values()
        assert read == value
        assert type(read) is type(value)

    def test_what_is_no_setting_is_told_all_at_once(self) -> None:
        with pytest.raises(ConfigError) as caught:
            from_settings(["seed", "=3", "training.rounds=2"])
        assert [fault.key for fault in caught.value.faults] == ["seed", "=3"]
        assert caught.value.hints == ("write KEY=VALUE, for example seed=1",)

    def test_a_value_and_a_section_of_the_same_name_contradict(self) -> None:
        with pytest.raises(ConfigError, match=r"privacy\.epsilon"):
            from_settings(["privacy=3", "privacy.epsilon=3"])

    @pytest.mark.parametrize("text", ["seed = ", "[privacy", "a = 1\na = 2", "\x00"])
    def test_broken_toml_is_refused_with_its_place(self, text: str) -> None:
        with pytest.raises(ConfigError, match=r"my\.toml is not valid TOML"):
            from_toml(text, where="my.toml")


class TestFaults:
    def test_every_fault_is_told_with_key_value_and_what_is_allowed(self) -> None:
        found = faults(
            from_settings(
                [
                    "privacy.epsilon=-1",
                    "privacy.delta=1",
                    "privacy.noise=loud",
                    "training.rounds=0",
                    "training.batch_size=many",
                    "federation.strategy=fedsum",
                    "seed=-3",
                ]
            )
        )
        shown = {fault.key: (fault.value, fault.allowed) for fault in found}
        assert shown["privacy.epsilon"] == ("-1", "must be greater than or equal to 0.001")
        assert shown["privacy.delta"] == ("1", "must be less than 1")
        assert shown["privacy.noise"][0] == '"loud"'
        for choice in ("none", "local", "distributed", "central"):
            assert choice in shown["privacy.noise"][1]
        assert shown["training.rounds"] == ("0", "must be greater than or equal to 1")
        assert shown["training.batch_size"][0] == '"many"'
        assert "fedavg" in shown["federation.strategy"][1]
        assert shown["seed"] == ("-3", "must be greater than or equal to 0")
        assert len(found) == 7

    @pytest.mark.parametrize(
        ("wrong", "right"),
        [
            ("privacy.epsilom", "privacy.epsilon"),
            ("training.round", "training.rounds"),
            ("federation.client", "federation.clients"),
            ("data.partitions", "data.partition"),
            ("privacy.clipnorm", "privacy.clip_norm"),
            ("sed", "seed"),
        ],
    )
    def test_an_unknown_key_gets_the_nearest_one_named(self, wrong: str, right: str) -> None:
        (fault,) = faults(unflatten({wrong: 3}))
        assert fault.key == wrong
        assert (fault.allowed, fault.hint) == ("no such key", f"did you mean {right}?")

    def test_a_key_like_no_other_gets_no_suggestion(self) -> None:
        (fault,) = faults({"zzz": 1})
        assert (fault.allowed, fault.hint) == ("no such key", "")

    @pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
    @pytest.mark.parametrize(
        "key",
        [
            "privacy.epsilon",
            "privacy.delta",
            "privacy.clip_norm",
            "training.learning_rate",
            "training.local_epochs",
            "training.momentum",
            "training.weight_decay",
            "federation.max_update_norm",
            "federation.round_timeout_s",
            "federation.trim_fraction",
            "data.dirichlet_alpha",
            "data.test_fraction",
        ],
    )
    def test_what_is_no_finite_number_is_refused(self, key: str, number: str) -> None:
        assert key in {fault.key for fault in faults(from_settings([f"{key}={number}"]))}

    def test_a_number_where_a_section_belongs_is_refused(self) -> None:
        (fault,) = faults({"privacy": 3})
        assert (fault.key, fault.value) == ("privacy", "3")

    def test_a_config_cannot_be_changed(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            Config().privacy.epsilon = 3.0  # type: ignore[misc]


CONTRADICTIONS = {
    "files without a folder": (["data.source=idx"], "data.directory"),
    "a hub set without a name": (["data.source=hub"], "data.hub_name"),
    "clients that digits do not know": (["data.partition=natural"], "data.partition"),
    "more clients a round than there are": (
        ["federation.clients_per_round=11"],
        "federation.clients_per_round",
    ),
    "more replies than clients asked": (["federation.min_replies=11"], "federation.min_replies"),
    "too few clients for Krum": (
        ["federation.strategy=krum", "federation.malicious_clients=4"],
        "federation.malicious_clients",
    ),
    "more selected than asked": (
        ["federation.strategy=multikrum", "federation.selected_clients=11"],
        "federation.selected_clients",
    ),
    "nominal counts without a number": (
        ["privacy.record_counts=nominal"],
        "privacy.nominal_records",
    ),
    "exact metrics in a private run": (
        ["federation.client_evaluation=true"],
        "federation.client_evaluation",
    ),
    "clean gradients at the server": (["privacy.noise=central"], "privacy.noise"),
    "shares of noise without sealing": (["privacy.noise=distributed"], "privacy.noise"),
    "sealing what has to be seen": (
        ["secure_aggregation.scheme=bfv", "federation.strategy=fedmedian"],
        "federation.strategy",
    ),
    "more contributors than clients": (
        ["secure_aggregation.scheme=bfv", "secure_aggregation.min_contributors=11"],
        "secure_aggregation.min_contributors",
    ),
    "an unknown model": (["model.name=transformer"], "model.name"),
    "a sequence model on images": (["model.name=lstm"], "data.view"),
    "heads that do not divide": (
        ["model.name=attention", "data.view=sequence", "model.heads=3"],
        "model.heads",
    ),
    "a model name with a tab in it": (["model.name=a\tb"], "model.name"),
    "a model name of two lines": (["model.name='''a\nb'''"], "model.name"),
}


class TestContradictions:
    @pytest.mark.parametrize("case", CONTRADICTIONS)
    def test_what_cannot_be_is_refused_by_the_key_to_change(self, case: str) -> None:
        lines, key = CONTRADICTIONS[case]
        found = faults(from_settings(lines))
        assert [fault.key for fault in found] == [key]
        assert found[0].allowed

    def test_all_contradictions_are_told_together(self) -> None:
        lines = [line for case in ("files without a folder", "a sequence model on images")
                 for line in CONTRADICTIONS[case][0]]  # fmt: skip
        assert {fault.key for fault in faults(from_settings(lines))} == {
            "data.directory",
            "data.view",
        }

    @pytest.mark.parametrize(
        "lines",
        [
            ["federation.client_evaluation=true", "privacy.release_metrics=true"],
            ["federation.client_evaluation=true", "privacy.noise=none"],
            ["privacy.record_counts=nominal", "privacy.nominal_records=100"],
            ["federation.strategy=krum", "federation.malicious_clients=3"],
            ["model.name=lstm", "data.view=sequence"],
            ["model.name=my_package.nets:small"],
        ],
    )
    def test_the_way_out_that_a_fault_names_is_open(self, lines: list[str]) -> None:
        assert build(from_settings(lines)) != Config()


class TestDigest:
    def test_it_depends_on_what_can_change_a_result(self) -> None:
        digests = {digest(build(from_settings([line]))) for line in SETTINGS[:6]}
        assert len(digests | {digest(Config())}) == 7

    @pytest.mark.parametrize("line", ["name=other", "data.directory=/elsewhere"])
    def test_it_does_not_depend_on_names_and_places(self, line: str) -> None:
        here = ["data.source=npz", "data.directory=/here"]
        assert digest(build(from_settings([*here, line]))) == digest(build(from_settings(here)))

    def test_a_folder_that_the_source_does_not_read_is_refused(self) -> None:
        with pytest.raises(
            ConfigError, match=r"(?s)digits reads no folder .*hint: set data\.source = npz"
        ):
            build(from_settings(["data.source=digits", "data.directory=/my/csv"]))

    @pytest.mark.parametrize(
        ("preset", "expected"),
        [
            (
                "digits-attention",
                "5528f4b817f227978d4776a824ae0d2de6821a6b1f923b1215901996a702b848",
            ),
            ("digits-cnn", "c26b41b386635b12995311d49a54709ed99f7e44b86b77fa85e83913bfc5acbb"),
            ("digits-lstm", "746ab15e530a49bdf7a30eae6b4801ae415d4e1bc6bc6228bc51b7d028be147a"),
            ("fashion-cnn", "e3323131379e2d7ff18a3d5837a15a284990ca1019881a39be08e64ce8593377"),
            ("fashion-lstm", "02eb92df0693c6999e6733c46efdcae11969522bb9dfdef527b10a80180bfea4"),
        ],
    )
    def test_keys_that_were_added_later_leave_older_runs_as_they_are(
        self, preset: str, expected: str
    ) -> None:
        """Pinned before there were any: the noise of a simulation and resuming depend on it."""
        place = None if preset.startswith("digits") else Path("anywhere")
        assert digest(resolve(preset, data_dir=place)) == expected

    @pytest.mark.parametrize("key", ADDED_LATER)
    def test_a_later_key_has_the_default_that_the_digest_leaves_out(self, key: str) -> None:
        flat = to_run_config(Config())
        assert flat[key] == ADDED_LATER[key]
        assert type(flat[key]) is type(ADDED_LATER[key])

    def test_a_later_key_changes_the_digest_once_it_is_set(self) -> None:
        lines = ["data.classes=10", "data.bounds=a=0:1", "data.mels=41", "data.hold_out=file"]
        digests = {digest(build(from_settings([line]))) for line in lines}
        assert len(digests | {digest(Config())}) == 5


class TestDataSettings:
    @pytest.mark.parametrize(
        ("line", "allowed"),
        [
            ("data.bounds=age=18", r"must be LOW:HIGH, two numbers, but 18 is not"),
            ("data.bounds=age=9:1", "must be smaller than HIGH"),
            ("data.bounds=a=0:1,a=0:2", "a column is in it twice"),
            ("data.categories=a=x|x", "must be different and not empty"),
            ("data.value_range=4095", "must be LOW,HIGH, two numbers"),
            ("data.value_range=0,inf", "must be smaller than HIGH"),
            ("data.image_size=32", "must be HEIGHTxWIDTH"),
            ("data.classes=1", "two classes or more"),
            ("data.classes=9999999999", "two classes or more"),
            ("data.classes=a,b,a", "a is in it twice"),
            ("data.columns=a,,b", "none of them empty"),
            ("data.label='\"a'", "names separated by commas"),
        ],
    )
    def test_what_cannot_be_read_is_refused_with_its_form(self, line: str, allowed: str) -> None:
        with pytest.raises(ConfigError, match=allowed):
            build(from_settings([line]))

    @pytest.mark.parametrize(
        ("line", "allowed"),
        [
            ("data.source=table", "data.label = '': source table needs the column"),
            ("data.source=audio", "data.directory = '': source audio needs a folder"),
            ("data.test_names=*.wav", "only images, audio and sensors have files"),
        ],
    )
    def test_sources_say_what_they_need(self, line: str, allowed: str) -> None:
        with pytest.raises(ConfigError, match=allowed):
            build(from_settings([line]))

    def test_a_file_that_begins_with_a_byte_order_mark_is_read(self) -> None:
        assert from_toml("\ufeffseed = 3") == {"seed": 3}
