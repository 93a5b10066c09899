"""Reading a `Config`: TOML text, ``key=value`` settings and Flower's flat run config.

All three give the same object, and all report every fault at once as `ConfigError`.
"""

from __future__ import annotations

import hashlib
import json
import numbers
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import tomli_w
from pydantic import BaseModel, ValidationError

from calyx.shared.config.config import Config
from calyx.shared.config.schema import FAULTS
from calyx.shared.errors import ConfigError, Fault

Scalar = str | int | float | bool
# What a run is given beside its preset: ["privacy.epsilon=3"] or {"privacy.epsilon": 3}.
Settings = Sequence[str] | Mapping[str, Scalar]
# NumPy's numbers and members of enums are such values too; TOML writes the plain types only.
# Booleans come first, because they are integers, and integers are real numbers.
_PLAIN: tuple[tuple[Any, Callable[[Any], Scalar]], ...] = (
    (bool, bool),
    (numbers.Integral, int),
    (numbers.Real, float),
    (str, str.__str__),
)
# A configuration has sections of values and of lists.
_DEEPEST = 16

ADDED_LATER: Mapping[str, Scalar] = {
    "training.schedule": "constant",
    "training.warmup_rounds": 0,
    "training.micro_batch": 0,
    "training.patience": 0,
    "training.start_sha256": "",
    "task.kind": "classification",
    "task.class_weights": "",
    "task.augment": "",
    "task.copies": 1,
    "data.label": "",
    "data.layout": "auto",
    "data.text": "text",
    "data.vocabulary": "hashed:8192",
    "data.length": 64,
    "data.classes": "",
    "data.value_range": "",
    "data.columns": "",
    "data.bounds": "",
    "data.categories": "",
    "data.missing": "refuse",
    "data.record_id": "",
    "data.encoding": "utf-8",
    "data.name_pattern": "",
    "data.test_names": "",
    "data.hold_out": "auto",
    "data.image_size": "",
    "data.colour": "as_stored",
    "data.sample_rate": 16_000,
    "data.seconds": 1.0,
    "data.mels": 40,
    "data.orientation": "as_stored",
    "data.window": 128,
    "data.window_step": 0,
    "model.token_scale": 1.0,
    "model.mean_over_steps": False,
    "model.embedding": 0,
    "model.bidirectional": False,
    "model.dropout": 0.0,
    "model.freeze": "",
}
"""Keys that the first digests did not cover, with the value that means what was done then.

A key that is added to the schema comes in here, with its default. The default of one that is in
here never changes.
"""


def from_toml(text: str, *, where: str = "configuration") -> dict[str, Any]:
    """Parse TOML into a nested mapping; a syntax fault names the place."""
    try:
        # Some editors begin each file with a byte-order mark.
        found = tomllib.loads(text.removeprefix("\ufeff"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{where} is not valid TOML: {error}", hint="correct the file") from None
    level: list[Any] = [found]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _inner(outer)]
    if level:
        # Code that walks through it would run out of stack, long after it was read.
        raise ConfigError(f"{where} nests tables or lists more than {_DEEPEST} deep")
    return found


def _inner(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def from_settings(settings: Settings) -> dict[str, Any]:
    """Read settings with dotted keys, as ``key=value`` texts or as a mapping.

    In a text the value is TOML, and what is not TOML is a string. In a mapping it has its type
    already: ``"3"`` stays a string.

    >>> from_settings(["privacy.epsilon=3", "data.partition=iid"])
    {'privacy': {'epsilon': 3}, 'data': {'partition': 'iid'}}
    >>> from_settings({"privacy.epsilon": 3, "data.partition": "iid"})
    {'privacy': {'epsilon': 3}, 'data': {'partition': 'iid'}}

    Raises:
        ConfigError: naming each text without ``=``, or each key and value of another type.
    """
    if isinstance(settings, str):
        give = 'give a list, ["key=value"], or a mapping'
        fault = Fault("settings", _shown(settings), "a text of its own", give)
        raise ConfigError("settings cannot be read", [fault])
    flat, faults = _typed(settings) if isinstance(settings, Mapping) else _parsed(settings)
    if faults:
        raise ConfigError("settings cannot be read", faults)
    return unflatten(flat)


def _typed(settings: Mapping[Any, Any]) -> tuple[dict[str, Scalar], list[Fault]]:
    flat: dict[str, Scalar] = {}
    faults = []
    for key, value in settings.items():
        if not isinstance(key, str) or not key.strip():
            fault = Fault(repr(key), _shown(value), "not a key", 'write text, "privacy.epsilon"')
            faults.append(fault)
            continue
        plain = next((plain for kind, plain in _PLAIN if isinstance(value, kind)), None)
        if plain is None:
            hint = f'write "{key}.KEY": value' if isinstance(value, Mapping) else ""
            name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
            allowed = f"must be str, int, float or bool, not {name}"
            faults.append(Fault(key, _shown(value), allowed, hint))
        else:
            flat[key.strip()] = plain(value)
    return flat, faults


def _parsed(settings: Iterable[Any]) -> tuple[dict[str, Scalar], list[Fault]]:
    flat: dict[str, Scalar] = {}
    faults = []
    for setting in settings:
        key, separator, value = str(setting).partition("=")
        if not separator or not key.strip():
            hint = "write KEY=VALUE, for example seed=1"
            faults.append(Fault(str(setting), "''", "not a setting", hint))
            continue
        flat[key.strip()] = _toml_value(value.strip())
    return flat, faults


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def flatten(nested: Mapping[str, Any]) -> dict[str, Scalar]:
    """Turn ``{"privacy": {"epsilon": 3}}`` into ``{"privacy.epsilon": 3}``."""
    flat: dict[str, Scalar] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": v for inner, v in flatten(value).items()})
        else:
            flat[key] = value
    return flat


def unflatten(flat: Mapping[str, Scalar]) -> dict[str, Any]:
    """Inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(
                    "settings cannot be read",
                    [Fault(key, str(value), "not a section")],
                    hint="docs/configuration.md lists the keys",
                )
        node[leaf] = value
    return nested


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over` written over it, section by section."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def build(*layers: Mapping[str, Any]) -> Config:
    """Merge the layers, later ones winning, and validate.

    Raises:
        ConfigError: with every fault: key, value and what is allowed.
    """
    nested: dict[str, Any] = {}
    for layer in layers:
        nested = merge(nested, layer)
    try:
        return Config.model_validate(nested)
    except ValidationError as error:
        raise ConfigError(
            "the configuration is not valid",
            faults_of(error, Config),
            hint="docs/configuration.md lists every key and what is allowed",
        ) from None


def from_run_config(run_config: Mapping[str, Scalar]) -> Config:
    """Build the config from Flower's flat run config."""
    return build(unflatten(run_config))


def to_run_config(config: Config) -> dict[str, Scalar]:
    """The whole config as Flower's flat run config; inverse of `from_run_config`."""
    return flatten(config.model_dump())


def to_toml(config: Config) -> str:
    """The whole config, every default written out, as TOML."""
    return tomli_w.dumps(config.model_dump())


def digest(config: Config) -> str:
    """SHA-256 over everything in the config that can change a result, as hex.

    Left out are the run's name, the folder the data lies in and the place of the weights it starts
    from: data and weights are known by their content, not by their place. Keys of `ADDED_LATER` are
    left out where they have their default:
    the digest decides the noise of a simulation and whether a run can be resumed, and a
    configuration from before the key was there means the same today.
    """
    content = config.model_dump(
        exclude={"name": True, "data": {"directory"}, "training": {"start"}}
    )
    for key, default in ADDED_LATER.items():
        section, name = key.split(".")
        if content[section][name] == default:
            del content[section][name]
    content = {section: keys for section, keys in content.items() if keys != {}}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def faults_of(
    error: ValidationError, kind: type[BaseModel], missing: str = "must be given"
) -> list[Fault]:
    """What is wrong, key by key, and what is allowed there.

    Args:
        error: from validating `kind`.
        kind: whose keys are near what was meant by one that does not exist.
        missing: what to say of a key that must be there and is not.
    """
    faults = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            faults.append(Fault(key, _shown(item["input"]), "no such key", _nearest(key, kind)))
        elif item["type"] == "missing":
            faults.append(Fault(key, "''", missing))
        elif item["type"] == FAULTS:
            faults += item["ctx"]["faults"]
        else:
            faults.append(Fault(key, _shown(item["input"]), *_allowed(item["msg"])))
    return faults


def _shown(value: object) -> str:
    return json.dumps(value, default=str)


def _allowed(message: str) -> tuple[str, str]:
    """What is allowed, and what to do: our own validators put the second after a semicolon."""
    own = message.removeprefix("Value error, ")
    if own != message:
        text, _, hint = own.partition("; ")
    else:
        text, hint = message.replace("Input should be ", "must be ").replace("Input", "it"), ""
    return text[0].lower() + text[1:], hint


def _nearest(key: str, kind: type[BaseModel]) -> str:
    close = get_close_matches(key, [*all_keys(kind), *kind.model_fields], n=1)
    return f"did you mean {close[0]}?" if close else ""


def all_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the schema."""
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += all_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys
