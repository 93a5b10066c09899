"""The commands of ``calyx client`` that make a device and run it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calyx.cli.arguments.device_records import RecordOptions
from calyx.cli.arguments.options import AsJson, Settings, Verbose

if TYPE_CHECKING:
    from calyx.cli.terminal.console import Terminal
    from calyx.client.deployment.enrolment import Enrolled
    from calyx.client.deployment.folder import DataPlace
    from calyx.client.deployment.launch import DeviceEvent

Directory = Annotated[Path, typer.Argument(metavar="DIR")]
AcceptOverlap = Annotated[
    bool,
    typer.Option(
        "--accept-overlap",
        help="Accept records that another device has too; what both spend on them adds up.",
    ),
]


class Source(StrEnum):
    """How a device reads records."""

    IDX = "idx"
    NPZ = "npz"
    PYTHON = "python"
    TABLE = "table"
    IMAGES = "images"
    AUDIO = "audio"
    SENSORS = "sensors"
    TEXT = "text"
    TASK = "task"


_STYLES = {"refused": "bold yellow", "trouble": "yellow", "connected": "green"}


def enroll(
    directory: Directory,
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="The server's address for devices.")
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="The folder for-devices of the server's operator, or ca.pem in it.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|MODULE:FUNCTION",
            help="This device's records: a folder, file or archive, or a function of your own.",
        ),
    ] = None,
    source: Annotated[
        Source | None,
        typer.Option(help="How the records are read.", show_default="as they look"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="PRESET|FILE.toml",
            help="The run to take part in: its reading settings, and its model to try.",
        ),
    ] = None,
    settings: Settings = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="KIND|MODULE:OBJECT",
            help="What is learned; naming code of your own agrees to it as it is now.",
            show_default="the preset's, or classification",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the device.", show_default="this machine's"),
    ] = None,
    authority_key: Annotated[
        str,
        typer.Option(metavar="HEX|FILE", help="The key authority's key, needed to seal updates."),
    ] = "",
    server_key: Annotated[
        str,
        typer.Option(
            metavar="HEX|FILE",
            help="The key that the server signs with.",
            show_default="instructions.pub beside --ca",
        ),
    ] = "",
    python_path: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the module in --data or --task."),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(metavar="K/N", help="For demonstrations: part K of N of the digits."),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="SEED", help="With --partition: how the digits are divided.")
    ] = 0,
    accept_overlap: AcceptOverlap = False,
    renew: Annotated[
        bool, typer.Option("--renew", help="Only make a new request, for an existing device.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make a device in DIR: its keys, a strict policy to edit, and an enrolment request.

    Send the file request.json in DIR to the operators of the server and of the key authority, and
    give them the fingerprint over another channel. Each of them approves it once.

    The policy is yours: read it and set the limits that you want. Keys and records never leave
    the device. Records have one budget: records that another device of this user already has are
    refused.

    How the records are read is yours to say as well, with --preset or --set data.KEY=VALUE, and a
    run that reads them otherwise is refused. calyx data inspect PATH proposes the settings.

    [bold]Examples[/bold]
    calyx client enroll ~/device --server fl.example.org:9441 \\
        --ca for-devices --data ~/records --authority-key authority.pub
    calyx client enroll ~/device --server [2001:db8::7]:9441 \\
        --ca for-devices --data patients.csv --preset study.toml
    calyx client enroll ~/device --server fl.example.org:9441 \\
        --ca for-devices --data patients.csv \\
        --set data.label=diagnosis --set data.classes=ill,well
    calyx client enroll ~/device --server fl.example.org:9441 \\
        --ca for-devices --data mine:load --python-path .
    calyx client enroll ~/device --server fl.example.org:9441 \\
        --ca for-devices --data records.csv \\
        --task mytask:task --python-path .
    calyx client enroll ~/demo --server 127.0.0.1:9440 \\
        --ca ~/server/for-devices --partition 0/3
    calyx client enroll ~/device --renew
    """
    from calyx.cli.terminal.console import facts, terminal
    from calyx.client.deployment.enrolment import renew_request

    with terminal(as_json=as_json, verbose=verbose) as screen:
        if renew:
            made = renew_request(directory)
        else:
            with screen.busy("making keys"):
                records = None
                if data is not None:
                    records = RecordOptions(
                        data,
                        None if source is None else source.value,
                        preset,
                        settings or (),
                        task,
                        python_path,
                    )
                made = _enroll(
                    directory,
                    server,
                    ca,
                    records,
                    name,
                    authority_key,
                    server_key,
                    partition,
                    seed,
                    is_described=any((source, preset, settings, task)),
                    accept_overlap=accept_overlap,
                )
        device = made.device
        screen.show(
            facts(
                {
                    "device": made.request.name,
                    "folder": str(device.directory),
                    "policy": f"{device.policy_path}: yours to edit",
                    "request": f"{device.request_path}: for both operators",
                    "fingerprint": made.request.fingerprint,
                    "pinned CA": made.ca_fingerprint,
                    "pinned server key": made.server_key,
                }
            )
        )
        for warning in made.warnings:
            screen.warn(warning)
        screen.line()
        screen.line(f"when both have approved it: calyx client join {directory}")
        screen.emit(
            {
                "name": made.request.name,
                "directory": str(device.directory),
                "request": str(device.request_path),
                "fingerprint": made.request.fingerprint,
                "ca_fingerprint": made.ca_fingerprint,
                "server_key": made.server_key,
                "warnings": list(made.warnings),
            }
        )


def join(
    directory: Directory,
    simulated_noise: Annotated[
        int | None,
        typer.Option(
            "--simulated-noise",
            metavar="SEED",
            help="NOT PRIVATE: seeded noise, to compare a deployment with a simulation.",
        ),
    ] = None,
    accept_overlap: AcceptOverlap = False,
    verbose: Verbose = False,
) -> None:
    """Run the device in DIR until it is stopped (Ctrl-C, SIGTERM or calyx client stop).

    It takes part in the runs of its server. It runs the code that is installed here, never code
    that a server sends, opens no port, and checks policy and ledger before each round. What it
    refuses is shown here and reported to the server. Output also goes to DIR/logs.

    [bold]Examples[/bold]
    calyx client join ~/device
    """
    from calyx.cli.terminal.console import plain, terminal
    from calyx.client.deployment.launch import join as serve

    with terminal(verbose=verbose) as screen:
        if simulated_noise is not None:
            screen.warn("the noise is seeded: anyone who knows the seed can remove it")

        def show(event: DeviceEvent) -> None:
            screen.say(plain(event.text), _STYLES.get(event.kind, ""))

        serve(
            directory,
            simulated_noise=simulated_noise,
            accept_overlap=accept_overlap,
            on_event=show,
        )


def status(directory: Directory, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Show what the device in DIR is doing and what its policy allows.

    [bold]Examples[/bold]
    calyx client status ~/device
    calyx client status ~/device --json
    """
    from calyx.cli.terminal.console import terminal
    from calyx.client.deployment.launch import status_of

    with terminal(as_json=as_json, verbose=verbose) as screen:
        found = status_of(directory)
        _show_status(screen, found)
        screen.emit(found)


def stop(directory: Directory, verbose: Verbose = False) -> None:
    """Stop the device in DIR.

    [bold]Examples[/bold]
    calyx client stop ~/device
    """
    from calyx.cli.terminal.console import terminal
    from calyx.client.deployment.launch import stop_running

    with terminal(verbose=verbose) as screen:
        with screen.busy("stopping"):
            ran = stop_running(directory)
        screen.say("stopped" if ran else "it did not run")


def _enroll(
    directory: Path,
    server: str | None,
    ca: Path | None,
    records: RecordOptions | None,
    name: str | None,
    authority_key: str,
    server_key: str,
    partition: str | None,
    seed: int,
    *,
    is_described: bool,
    accept_overlap: bool,
) -> Enrolled:
    from calyx.client.deployment.enrolment import enroll as make
    from calyx.shared.errors import UsageError

    if server is None or ca is None or (records is None) == (partition is None):
        raise UsageError(
            "--server, --ca and --data (or --partition for a demonstration) are needed",
            hint="see calyx client enroll --help",
        )
    if records is None and is_described:
        raise UsageError(
            "--source, --preset, --set and --task say how records are read, and the digits are not "
            "read from a file",
            hint="leave them out, or give --data PATH",
        )
    place = _digits(directory, partition, seed) if records is None else records.place()
    return make(
        directory,
        name=name,
        server=server,
        ca=ca,
        authority_key=_key_text(authority_key),
        data=place,
        server_key=_key_text(server_key),
        run=None if records is None else records.run(place),
        accept_overlap=accept_overlap,
    )


def _digits(directory: Path, partition: str | None, seed: int) -> DataPlace:
    """Part K of N of the digits, as a simulation with this seed would give it to client K."""
    from calyx.client.deployment.enrolment import keep_records
    from calyx.shared.data.demo_share import share_of_digits
    from calyx.shared.errors import UsageError

    number, _, parts = (partition or "").partition("/")
    if not (number.isdigit() and parts.isdigit() and int(number) < int(parts)):
        raise UsageError(
            f"--partition {partition} is not a part of the digits",
            hint="write it as K/N with K from 0, for example 0/3",
        )
    return keep_records(directory, share_of_digits(int(number), int(parts), seed))


def _key_text(given: str) -> str:
    from calyx.shared.errors import ConfigError

    path = Path(given).expanduser()
    if not given or not path.is_file():
        return given
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} holds no key: {error}",
            hint="name the file authority.pub or instructions.pub, or give the key itself",
        ) from None


def _show_status(screen: Terminal, found: dict[str, Any]) -> None:
    from calyx.cli.terminal.console import facts, plain

    state = f"{found['state']} (process {found['pid']})" if found["running"] else found["state"]
    rows = {
        "device": plain(found["name"]),
        "state": state,
        "server": found["server"],
        "records": plain(found["records"]),
        "can seal": "yes" if found["can_seal"] else "no: no key authority is pinned",
    }
    if "noise" in found:
        rows["noise"] = found["noise"]
    if found.get("messages"):
        rows["answered"] = f"{found['messages']} messages, the last at {found['last_message']}"
    if found.get("refusals"):
        rows["refused"] = f"{found['refusals']}, the last: {plain(found['last_refusal'])}"
    screen.show(facts(rows))
