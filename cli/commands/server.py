"""``calyx server``: running the server that devices connect to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calyx.cli.arguments.help_text import help_text
from calyx.cli.arguments.options import AsJson, DataDir, Settings, Verbose
from calyx.cli.arguments.request_file import Fingerprint

_GROUP = """Run the server that real devices connect to.

DIR is the folder of the server, which calyx server init makes. Devices are made with calyx client
enroll; sealed runs also need a key authority, see calyx authority.

[bold]Examples[/bold]
calyx server init ~/server
calyx server up ~/server
calyx server approve ~/server clinic-a.json
calyx server run ~/server digits-cnn --set federation.clients=3
"""
app = typer.Typer(no_args_is_help=True, help=help_text(_GROUP))

# The executor learns of it with its next call to the SuperLink, or its next heartbeat.
_STOP_S = 30.0

Directory = Annotated[Path, typer.Argument(metavar="DIR")]


def init(
    directory: Directory,
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="NAME",
            help="Name or address at which devices reach it; repeatable.",
        ),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="Port to listen on.")
    ] = 9440,
    public_port: Annotated[
        int,
        typer.Option(metavar="PORT", min=1, max=65535, help="Port of the reverse proxy."),
    ] = 9441,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make a server in DIR: its CA and certificate, its secrets, its settings.

    Give the folder for-devices in DIR to the owners of devices. The server listens on this machine
    only; nginx.conf in DIR sets up a reverse proxy that lets in devices and no one else.

    [bold]Examples[/bold]
    calyx server init ~/server
    calyx server init ~/server --host fl.example.org --host 192.0.2.7
    """
    from calyx.cli.terminal.console import facts, terminal
    from calyx.server.deployment.setup import init as make

    with terminal(as_json=as_json, verbose=verbose) as screen:
        made = make(directory, hosts=hosts or (), listen=listen, port=port, public_port=public_port)
        screen.show(
            facts(
                {
                    "server": str(made.directory),
                    "for devices": str(made.for_devices),
                    "CA fingerprint": made.ca_fingerprint,
                    "instruction key": made.instruction_key,
                    "reverse proxy": str(made.directory / "nginx.conf"),
                }
            )
        )
        screen.line()
        screen.line(f"next: calyx server authority {directory} HOST:PORT FOLDER   (sealed runs)")
        screen.line(f"      calyx server up {directory}")
        screen.emit(
            {
                "directory": str(made.directory),
                "for_devices": str(made.for_devices),
                "ca_fingerprint": made.ca_fingerprint,
                "instruction_key": made.instruction_key,
            }
        )


def renew(
    directory: Directory,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME", help="A further name or address; repeatable."),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Make a new certificate for the server in DIR.

    It is signed by the same CA and keeps the names of the old one, so devices need nothing new.
    Restart the server afterwards.

    [bold]Examples[/bold]
    calyx server renew ~/server
    calyx server renew ~/server --host fl.example.org
    """
    from calyx.cli.terminal.console import terminal
    from calyx.server.deployment.setup import renew as make

    with terminal(verbose=verbose) as screen:
        until = make(directory, hosts or ())
        screen.say(f"valid until {until:%Y-%m-%d}; now stop the server and start it again")


def authority(
    directory: Directory,
    address: Annotated[str, typer.Argument(metavar="HOST:PORT")],
    files: Annotated[Path, typer.Argument(metavar="FOLDER")],
    verbose: Verbose = False,
) -> None:
    """Tell the server in DIR which key authority to use; sealed runs need one.

    HOST:PORT is the address of the key authority. FOLDER is a copy of the folder for-server that
    calyx authority init made on its machine.

    [bold]Examples[/bold]
    calyx server authority ~/server authority.example.org:9443 for-server
    """
    from calyx.cli.terminal.console import terminal
    from calyx.server.deployment.setup import use_authority

    with terminal(verbose=verbose) as screen:
        use_authority(directory, address, files)
        screen.say(f"key authority at {address}")


def up(directory: Directory, verbose: Verbose = False) -> None:
    """Run the server in DIR until it is stopped (Ctrl-C, SIGTERM or calyx server stop).

    It runs Flower's SuperLink, with TLS and for registered nodes only, and beside it the ServerApp
    that is installed here: no code that comes with a run is ever used. Output goes to DIR/logs.

    [bold]Examples[/bold]
    calyx server up ~/server
    """
    from calyx.cli.terminal.console import terminal
    from calyx.server.deployment.launch import up as run

    with terminal(verbose=verbose) as screen:
        run(directory, on_event=screen.say)
        screen.say("stopped")


def run(
    directory: Directory,
    preset: Annotated[
        str | None,
        typer.Argument(
            metavar="[PRESET|FILE.toml]",
            show_default="digits-cnn",
            help="A preset, or a file of your own.",
        ),
    ] = None,
    settings: Settings = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Name of the run, also in ledgers.", show_default="PRESET-TIME"
        ),
    ] = None,
    data_dir: DataDir = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run with this --name.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Do not wait until the run ends.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train a model over the devices of the server in DIR, and show the progress.

    Needs calyx server up in another terminal. The run continues when this command is interrupted;
    the exit code is 1 if the run fails. --data-dir names the server's own test records; each
    device has records of its own.

    [bold]Examples[/bold]
    calyx server run ~/server digits-cnn --set federation.clients=3
    calyx server run ~/server my-run.toml --name first --detach
    calyx server run ~/server --name first --resume
    """
    from calyx.cli.terminal.console import terminal
    from calyx.cli.terminal.deployed_run import choose, follow, submit_run
    from calyx.cli.terminal.run_display import RunDisplay

    with terminal(as_json=as_json, verbose=verbose) as screen:
        config, chosen = choose(directory, preset, settings or (), name, data_dir, resume=resume)
        with screen.busy("submitting"):
            submitted = submit_run(directory, chosen, config, resume=resume)
        if detach:
            screen.say(f"submitted {chosen}; see: calyx server status {directory}")
            screen.emit({"run": chosen, "state": submitted.state})
            return
        display = RunDisplay(screen)
        try:
            with display:
                result = follow(directory, chosen, display)
        except KeyboardInterrupt:
            screen.line(
                f"the run continues; stop it with: calyx server stop {directory} --run {chosen}"
            )
            raise typer.Exit(130) from None
        screen.line()
        if display.rounds:
            from calyx.cli.terminal.run_summary import run_summary

            screen.show(run_summary(result, display.start, display.rounds))
            screen.line()
        screen.line(f"run folder: {result['run_dir']}")
        screen.emit(result)


def status(directory: Directory, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Show whether the server in DIR is up, its devices and its runs.

    [bold]Examples[/bold]
    calyx server status ~/server
    calyx server status ~/server --json
    """
    from calyx.cli.terminal.console import terminal
    from calyx.cli.terminal.server_status import show_status
    from calyx.server.deployment.launch import status_of

    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("asking"):
            found = status_of(directory)
        show_status(screen, found)
        screen.emit(found)


def stop(
    directory: Directory,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Stop this run only.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Stop the server in DIR, or one of its runs.

    A run that is stopped in the middle of a round can be resumed: devices that have answered in
    that round give the same answer again, and are charged for it once. (Updates that are not
    sealed are not kept; that round is charged again.)

    When the whole server stops, its runs pause and continue by themselves once it is up again.

    [bold]Examples[/bold]
    calyx server stop ~/server
    calyx server stop ~/server --run first
    """
    from calyx.cli.terminal.console import terminal

    with terminal(verbose=verbose) as screen:
        if run is not None:
            from calyx.server.deployment.folder import ServerFolder
            from calyx.server.deployment.handover import stop_run
            from calyx.server.deployment.submission import wait_for_end

            folder = ServerFolder(directory)
            stop_run(folder, run)
            if folder.running_pid() is None:
                screen.say(f"run {run} will not continue when the server is up again")
                return
            with screen.busy("stopping"):
                state = wait_for_end(folder, run, _STOP_S).state
            go_on = f"continue it with: calyx server run {directory} --name {run} --resume"
            how = {"stopped": f"was stopped; {go_on}", "stopping": "is still being stopped"}
            screen.say(f"run {run} {how.get(state, f'has meanwhile ended: {state}')}")
            return
        from calyx.server.deployment.launch import stop_running

        with screen.busy("stopping"):
            was_up = stop_running(directory)
        screen.say("stopped" if was_up else "it was not up")


def approve(
    directory: Directory,
    request: Annotated[Path, typer.Argument(metavar="REQUEST")],
    fingerprint: Fingerprint = None,
    max_records: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Most records that the device may declare.",
            show_default="as in server.toml",
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Approve the device whose enrolment request is in the file REQUEST.

    Get the fingerprint from the device's owner, by telephone or in person: it shows that the
    request was not replaced on its way. Without --fingerprint the command asks for it. A request
    can be used once.

    A device's update weighs as much as the record count that it declares, which cannot be checked.
    --max-records limits the count of this device, max_records in server.toml that of all others.

    [bold]Examples[/bold]
    calyx server approve ~/server clinic-a.json
    calyx server approve ~/server clinic-a.json --max-records 5000
    """
    from calyx.cli.arguments.request_file import request_text, stated_fingerprint
    from calyx.cli.terminal.console import terminal
    from calyx.server.deployment.enrolment import approve as enrol
    from calyx.server.deployment.folder import ServerFolder

    with terminal(as_json=as_json, verbose=verbose) as screen:
        text = request_text(request)
        node = enrol(
            ServerFolder(directory),
            text,
            fingerprint=stated_fingerprint(screen, fingerprint),
            max_records=max_records,
        )
        screen.say(f"approved {node.name}, fingerprint {node.fingerprint}")
        screen.emit({"name": node.name, "fingerprint": node.fingerprint, "node_id": node.node_id})


def revoke(
    directory: Directory,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    verbose: Verbose = False,
) -> None:
    """Exclude the device NAME for good.

    Revoke it at the key authority too, with calyx authority revoke.

    [bold]Examples[/bold]
    calyx server revoke ~/server clinic-a
    """
    from calyx.cli.terminal.console import terminal
    from calyx.server.deployment.enrolment import revoke as take_out
    from calyx.server.deployment.folder import ServerFolder

    with terminal(verbose=verbose) as screen:
        take_out(ServerFolder(directory), name)
        screen.say(f"revoked {name}; also run: calyx authority revoke DIR {name}")


for command in (init, up, run, status, stop, approve, revoke, authority, renew):
    app.command(help=help_text(command))(command)
