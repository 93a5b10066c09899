"""``calyx server``: running the server that devices connect to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calyx.cli.arguments.help_text import help_text
from calyx.cli.arguments.options import AsJson, DataDir, Settings, Verbose
from calyx.cli.arguments.request_file import Fingerprint

app = typer.Typer(no_args_is_help=True, help="Run the server that real devices connect to.")

# The executor learns of it with its next call to the SuperLink, or its next heartbeat.
_STOP_S = 30.0

Directory = Annotated[Path, typer.Argument(metavar="DIR")]


def init(
    directory: Directory,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", help="Name or address under which devices reach it; may repeat."),
    ] = None,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 9440,
    public_port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of the reverse proxy.")
    ] = 9441,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make a server in DIR: its CA and certificate, its secrets, its settings.

    The folder for-devices in it goes to the owners of devices. The server listens on this machine
    only; nginx.conf in DIR is a reverse proxy that lets devices in, and nobody else.

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
        list[str] | None, typer.Option("--host", help="A further name or address.")
    ] = None,
) -> None:
    """Make a new certificate for the server of DIR; restart it afterwards.

    It is signed by the same CA and keeps the names of the old one, so devices need nothing new.

    [bold]Examples[/bold]
    calyx server renew ~/server
    """
    from calyx.cli.terminal.console import terminal
    from calyx.server.deployment.setup import renew as make

    with terminal() as screen:
        until = make(directory, hosts or ())
        screen.say(f"valid until {until:%Y-%m-%d}; now stop the server and start it again")


def authority(
    directory: Directory,
    address: Annotated[str, typer.Argument(metavar="HOST:PORT")],
    files: Annotated[Path, typer.Argument(metavar="FOLDER")],
) -> None:
    """Name the key authority of the server of DIR, which sealed runs need.

    FOLDER is the folder for-server that calyx authority init made, brought from that machine.

    [bold]Examples[/bold]
    calyx server authority ~/server authority.example:9443 ./for-server
    """
    from calyx.cli.terminal.console import terminal
    from calyx.server.deployment.setup import use_authority

    with terminal() as screen:
        use_authority(directory, address, files)
        screen.say(f"key authority at {address}")


def up(directory: Directory, verbose: Verbose = False) -> None:
    """Start the server of DIR and watch over it until it is told to stop (Ctrl-C or SIGTERM).

    It runs Flower's SuperLink with TLS and registered nodes only, and beside it the ServerApp that
    is installed here: no code that comes with a run is ever used. Output goes to DIR/logs.

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
        str | None, typer.Argument(metavar="[PRESET|FILE.toml]", show_default="digits-cnn")
    ] = None,
    settings: Settings = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of the run, also in ledgers.", show_default="PRESET-TIME"),
    ] = None,
    data_dir: DataDir = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run of this --name.")
    ] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Have the devices of the server in DIR train, and show how it goes.

    Needs calyx server up in another terminal. The run goes on when this command is interrupted;
    the exit code is 1 if it fails. --data-dir names the server's own test records; each device
    has its own.

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
                f"the run goes on; stop it with: calyx server stop {directory} --run {chosen}"
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
    """Show whether the server of DIR is up, its devices and its runs.

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
) -> None:
    """Stop the server of DIR, or one of its runs.

    A run that is stopped in the middle of a round can be resumed: devices that have answered in
    that round answer the same again, and are charged for it once. (Of updates that are not sealed
    nothing is kept; that round is charged again.) With the whole server its runs stop until it is
    up again; they then go on by themselves.

    [bold]Examples[/bold]
    calyx server stop ~/server
    calyx server stop ~/server --run first
    """
    from calyx.cli.terminal.console import terminal

    with terminal() as screen:
        if run is not None:
            from calyx.server.deployment.folder import ServerFolder
            from calyx.server.deployment.handover import stop_run
            from calyx.server.deployment.submission import wait_for_end

            folder = ServerFolder(directory)
            stop_run(folder, run)
            if folder.running_pid() is None:
                screen.say(f"run {run} does not go on when the server is up again")
                return
            with screen.busy("stopping"):
                state = wait_for_end(folder, run, _STOP_S).state
            go_on = f"go on with: calyx server run {directory} --name {run} --resume"
            how = {"stopped": f"was stopped; {go_on}", "stopping": "is still being stopped"}
            screen.say(f"run {run} {how.get(state, f'has ended meanwhile: {state}')}")
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
            min=1, help="Records it may declare at most.", show_default="as in server.toml"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let the device take part whose enrolment request is in the file REQUEST.

    The fingerprint is what the device's owner reads from his screen, on the telephone or in
    person: it shows that nobody exchanged the request on its way. It is asked for if it is not on
    the command line. A request can be used once.

    A device's vote weighs as much as the record count that it declares, which nobody can check;
    --max-records limits it for this device, max_records in server.toml for all others.

    [bold]Examples[/bold]
    calyx server approve ~/server clinic-a.json
    calyx server approve ~/server clinic-a.json --fingerprint XXXX-XXXX-... --max-records 5000
    """
    from calyx.cli.arguments.request_file import request_text, stated_fingerprint
    from calyx.cli.terminal.console import terminal
    from calyx.server.deployment.enrolment import approve as enrol
    from calyx.server.deployment.folder import ServerFolder

    with terminal(as_json=as_json) as screen:
        text = request_text(request)
        node = enrol(
            ServerFolder(directory),
            text,
            fingerprint=stated_fingerprint(screen, fingerprint),
            max_records=max_records,
        )
        screen.say(f"approved {node.name}, fingerprint {node.fingerprint}")
        screen.emit({"name": node.name, "fingerprint": node.fingerprint, "node_id": node.node_id})


def revoke(directory: Directory, name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Take a device out for good. Take it out at the key authority too.

    [bold]Examples[/bold]
    calyx server revoke ~/server clinic-a
    """
    from calyx.cli.terminal.console import terminal
    from calyx.server.deployment.enrolment import revoke as take_out
    from calyx.server.deployment.folder import ServerFolder

    with terminal() as screen:
        take_out(ServerFolder(directory), name)
        screen.say(f"revoked {name}; also run: calyx authority revoke DIR {name}")


for command in (init, up, run, status, stop, approve, revoke, authority, renew):
    app.command(help=help_text(command))(command)
