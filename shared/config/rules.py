"""Rules that no single key can check: combinations that are impossible or give no guarantee."""

from __future__ import annotations

from calyx.shared.config.schema import MOST_COPIES, Sections
from calyx.shared.errors import Fault

# Sources that are files of the user's own.
NEEDS_DIRECTORY = frozenset({"idx", "npz", "table", "images", "audio", "sensors", "text"})
# Those where a path says what a recording is.
_NAMED_FILES = frozenset({"images", "audio", "sensors"})


def cross_section_faults(config: Sections) -> list[Fault]:
    """Return every contradiction between sections, empty if there is none."""
    return [
        *_data(config),
        *_task(config),
        *_training(config),
        *_federation(config),
        *_privacy(config),
        *_model(config),
    ]


def _data(config: Sections) -> list[Fault]:
    data, faults = config.data, []
    if data.source in NEEDS_DIRECTORY and not data.directory:
        faults.append(
            Fault(
                "data.directory",
                "''",
                f"source {data.source} needs a folder or file",
                "name it with --data-dir PATH",
            )
        )
    if data.source == "digits" and data.directory:
        # A user who names a folder means it: other records than those would be trained on.
        faults.append(
            Fault(
                "data.directory",
                data.directory,
                "source digits reads no folder and would train on other data",
                "set data.source = npz (NPZ archives), idx (IDX files), table (CSV, Parquet), "
                "images, audio, sensors, text or hub, or leave out --data-dir",
            )
        )
    if data.source == "hub" and not data.hub_name:
        faults.append(
            Fault(
                "data.hub_name",
                "''",
                "source hub needs the name of a data set",
                "set data.hub_name, for example ylecun/mnist",
            )
        )
    if data.partition == "natural" and data.source in ("digits", "idx"):
        faults.append(
            Fault(
                "data.partition",
                "natural",
                f"{data.source} has no client ids",
                "use another data.source",
            )
        )
    if data.source in ("table", "sensors") and not data.label:
        faults.append(
            Fault(
                "data.label",
                "''",
                f"source {data.source} needs the column with the class",
                "name it, for example data.label=class",
            )
        )
    for key, value in (("name_pattern", data.name_pattern), ("test_names", data.test_names)):
        if value and data.source not in _NAMED_FILES:
            faults.append(
                Fault(
                    f"data.{key}",
                    value,
                    "only images, audio and sensors have files to name",
                    "leave it out",
                )
            )
    return faults


# Kinds of labels that a source can give; all others give classes only.
_LABELS = {
    "table": ("classification", "multilabel", "regression"),
    "npz": ("classification", "multilabel", "regression"),
    "text": ("classification", "next_token"),
}


def _task(config: Sections) -> list[Fault]:
    task, data, faults = config.task, config.data, []
    if data.source == "task" and not task.is_own:
        faults.append(
            Fault(
                "data.source",
                "task",
                f"task.kind = {task.kind} reads no records by itself",
                "name your own with task.kind = module:object, or another data.source",
            )
        )
    if config.model.name == "task" and not task.is_own:
        faults.append(
            Fault(
                "model.name",
                "task",
                f"task.kind = {task.kind} brings no model",
                "name your own task with task.kind = module:object, or another model",
            )
        )
    possible = _LABELS.get(data.source, ("classification",))
    if not task.is_own and data.source != "task" and task.kind not in possible:
        faults.append(
            Fault(
                "task.kind",
                task.kind,
                f"source {data.source} gives labels for {' or '.join(possible)} only",
                "use another data.source, or a task of your own",
            )
        )
    if task.copies > (most := MOST_COPIES[task.augment]):
        kind = f"task.augment = {task.augment}" if task.augment else "no task.augment"
        faults.append(
            Fault("task.copies", str(task.copies), f"with {kind} there are {most} views at most")
        )
    if task.class_weights and task.kind != "classification":
        faults.append(
            Fault("task.class_weights", task.class_weights, "only classification has classes")
        )
    return faults


def _training(config: Sections) -> list[Fault]:
    training, faults = config.training, []
    if training.warmup_rounds >= training.rounds:
        faults.append(
            Fault(
                "training.warmup_rounds",
                str(training.warmup_rounds),
                f"fewer than training.rounds = {training.rounds}",
            )
        )
    if training.start_sha256 and not training.start:
        faults.append(Fault("training.start", "''", "start_sha256 is given without the file"))
    return faults


def _federation(config: Sections) -> list[Fault]:
    fed, faults = config.federation, []
    if fed.clients_per_round > fed.clients:
        faults.append(
            Fault(
                "federation.clients_per_round",
                str(fed.clients_per_round),
                f"at most federation.clients = {fed.clients}",
            )
        )
    if fed.min_replies > config.cohort_size:
        faults.append(
            Fault(
                "federation.min_replies",
                str(fed.min_replies),
                f"at most the {config.cohort_size} clients asked each round",
            )
        )
    if fed.strategy in ("krum", "multikrum"):
        # Blanchard et al. 2017: Krum withstands f bad replies only among n >= 2f + 3.
        needed = 2 * fed.malicious_clients + 3
        if config.cohort_size < needed:
            faults.append(
                Fault(
                    "federation.malicious_clients",
                    str(fed.malicious_clients),
                    f"Krum needs 2f+3 = {needed} clients per round; there are {config.cohort_size}",
                )
            )
        if fed.strategy == "multikrum" and fed.selected_clients > config.cohort_size:
            faults.append(
                Fault(
                    "federation.selected_clients",
                    str(fed.selected_clients),
                    f"at most the {config.cohort_size} clients asked each round",
                )
            )
    return faults


def _privacy(config: Sections) -> list[Fault]:
    privacy, faults = config.privacy, []
    sealed = config.is_sealed
    if privacy.record_counts == "nominal" and not privacy.nominal_records:
        faults.append(
            Fault(
                "privacy.nominal_records",
                "0",
                "nominal counts need a public number above 0",
                "set privacy.nominal_records",
            )
        )
    if config.federation.client_evaluation and config.is_private and not privacy.release_metrics:
        faults.append(
            Fault(
                "federation.client_evaluation",
                "true",
                "exact metrics of private records are a release of their own",
                "set it to false, or privacy.release_metrics = true to send them unprotected",
            )
        )
    if privacy.unit == "record" and privacy.noise == "central":
        faults.append(
            Fault(
                "privacy.noise",
                "central",
                "the server would have to be trusted with clean gradients of single records",
                "use privacy.noise = distributed (sealed) or local",
            )
        )
    if privacy.noise == "distributed" and not sealed:
        faults.append(
            Fault(
                "privacy.noise",
                "distributed",
                "a client's share of the noise hides nothing unless updates are sealed",
                "set secure_aggregation.scheme = bfv, or privacy.noise = local",
            )
        )
    if sealed and config.federation.strategy not in ("fedavg", "fedadam", "fedyogi"):
        faults.append(
            Fault(
                "federation.strategy",
                config.federation.strategy,
                "it needs to see single updates, which sealed aggregation hides",
                "use fedavg, fedadam or fedyogi, or secure_aggregation.scheme = none",
            )
        )
    if sealed and config.secure_aggregation.min_contributors > config.cohort_size:
        faults.append(
            Fault(
                "secure_aggregation.min_contributors",
                str(config.secure_aggregation.min_contributors),
                f"at most the {config.cohort_size} clients asked each round",
            )
        )
    return faults


# The built-in models, and how they see a record; empty: in any way.
_VIEWS = {
    "cnn": "image",
    "lstm": "sequence",
    "attention": "sequence",
    "cnn1d": "sequence",
    "mlp": "",
}


def _model(config: Sections) -> list[Fault]:
    model, faults = config.model, []
    if ":" not in model.name and model.name not in (*_VIEWS, "task"):
        known = ", ".join(_VIEWS)
        faults.append(Fault("model.name", model.name, f"{known} or your own module:function"))
    wanted = _VIEWS.get(model.name)
    # Text and what a task of the user's own reads come as they are; the model looks at them.
    if wanted and config.data.source not in ("text", "task") and wanted != config.data.view:
        faults.append(
            Fault("data.view", config.data.view, f"model {model.name} takes {wanted} data")
        )
    if model.name == "attention" and model.hidden % model.heads:
        faults.append(
            Fault("model.heads", str(model.heads), f"must divide model.hidden = {model.hidden}")
        )
    return faults
