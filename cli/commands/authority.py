"""``calyx authority``: running the party that holds the secret key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calyx.cli.arguments.help_text import help_text
from calyx.cli.arguments.options import AsJson, Verbose
from calyx.cli.arguments.request_file import Fingerprint

_GROUP = """Run the key authority, which alone can decrypt sums.

DIR is the folder of the key authority, which calyx authority init makes. Keep it on a machine of
its own, apart from the server.

[bold]Examples[/bold]
calyx authority init ~/authority --host authority.example.org
calyx authority serve ~/authority
calyx authority approve ~/authority clinic-a.json
"""
app = typer.Typer(no_args_is_help=True, help=help_text(_GROUP))

Directory = Annotated[Path, typer.Argument(metavar="DIR")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help="File with the passphrase that encrypts the secret keys on disk.",
    ),
]


def init(
    directory: Directory,
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="NAME",
            help="Name or address at which the server reaches it; repeatable.",
            show_default="localhost, 127.0.0.1",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(metavar="PORT", min=1, max=65535, help="Port to listen on.")
    ] = 9443,
    min_contributors: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            help="Fewest updates in a sum that it decrypts.",
            show_default="3",
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make a key authority in DIR: its identity, its certificates, its settings.

    Keep DIR on a machine of its own. Give the folder for-server in it to the operator of the
    aggregation server, and the key that is shown to the owners of the devices, who pin it.

    [bold]Examples[/bold]
    calyx authority init ~/authority
    calyx authority init ~/authority --host authority.example.org \\
        --min-contributors 5
    """
    from calyx.authority.launch import init as make
    from calyx.cli.terminal.console import facts, terminal

    with terminal(as_json=as_json, verbose=verbose) as screen:
        made = make(
            directory,
            hosts=tuple(hosts) if hosts else ("localhost", "127.0.0.1"),
            port=port,
            min_contributors=min_contributors,
            passphrase=_passphrase(passphrase_file),
        )
        screen.show(
            facts(
                {
                    "authority": str(made.directory),
                    "for the server": str(made.for_server),
                }
            )
        )
        screen.say(f"key to pin: {made.verify_key}")
        if as_json:
            screen.emit(
                {
                    "directory": str(made.directory),
                    "for_server": str(made.for_server),
                    "verify_key": made.verify_key,
                }
            )


def serve(
    directory: Directory,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS", help="Address to listen on.", show_default="as in authority.toml"
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            min=0,
            max=65535,
            help="Port to listen on.",
            show_default="as in authority.toml",
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    verbose: Verbose = False,
) -> None:
    """Run the key authority in DIR until it is stopped (Ctrl-C, SIGTERM or calyx authority stop).

    It listens over TLS and answers only servers that present a certificate that it has issued.
    Every release and every refusal is written to releases.jsonl in DIR.

    [bold]Examples[/bold]
    calyx authority serve ~/authority
    calyx authority serve ~/authority --host 10.0.0.5 --port 9443
    """
    from calyx.authority.launch import serve as run
    from calyx.cli.terminal.console import terminal

    with terminal(verbose=verbose) as screen:
        run(
            directory,
            host=host,
            port=port,
            passphrase=_passphrase(passphrase_file),
            on_ready=lambda bound: screen.say(f"key authority ready on port {bound}"),
        )


def approve(
    directory: Directory,
    request: Annotated[Path, typer.Argument(metavar="REQUEST")],
    fingerprint: Fingerprint = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Approve the device whose enrolment request is in the file REQUEST.

    Anyone can make a request under any name, including the server's operator. So get the
    fingerprint from the device's owner, by telephone or in person, and neither from the server's
    operator nor together with the file. Without --fingerprint the command asks for it.

    [bold]Examples[/bold]
    calyx authority approve ~/authority clinic-a.json
    """
    from calyx.authority.launch import approve as enrol
    from calyx.cli.arguments.request_file import request_text, stated_fingerprint
    from calyx.cli.terminal.console import terminal

    with terminal(as_json=as_json, verbose=verbose) as screen:
        text = request_text(request)
        made = enrol(directory, text, fingerprint=stated_fingerprint(screen, fingerprint))
        screen.say(f"enrolled {made.name}, fingerprint {made.fingerprint}")
        screen.emit({"name": made.name, "fingerprint": made.fingerprint})


def revoke(
    directory: Directory,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    verbose: Verbose = False,
) -> None:
    """Exclude the device NAME for good.

    It works while the key authority is served, and takes effect at once.

    [bold]Examples[/bold]
    calyx authority revoke ~/authority clinic-a
    """
    from calyx.authority.launch import revoke as take_out
    from calyx.cli.terminal.console import terminal

    with terminal(verbose=verbose) as screen:
        take_out(directory, name)
        screen.say(f"revoked {name}; no sum that contains an update of it is released any more")


def status(directory: Directory, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Show whether the key authority in DIR is served and who is enrolled, and check its log.

    [bold]Examples[/bold]
    calyx authority status ~/authority
    calyx authority status ~/authority --json
    """
    from calyx.authority.launch import status_of
    from calyx.cli.terminal.console import facts, plain, table, terminal, whole

    with terminal(as_json=as_json, verbose=verbose) as screen:
        found = status_of(directory)
        state = f"served (process {found['pid']})" if found["running"] else "not served"
        screen.show(
            facts(
                {
                    "authority": state,
                    "address": found["address"],
                    "key to pin": found["verify_key"],
                    "certificate": f"valid until {found['certificate_valid_until'][:10]}",
                    "log": f"{found['log_entries']} entries, chain complete",
                }
            )
        )
        screen.line()
        if found["contributors"]:
            members = table("enrolled", "fingerprint", "approved", "")
            for member in found["contributors"]:
                members.add_row(
                    plain(member["name"]),
                    whole(member["fingerprint"] or "not kept: enrolled by an older version"),
                    member["approved_at"][:10],
                    "revoked" if member["revoked"] else "",
                )
            screen.show(members)
        else:
            screen.line(
                "no device is enrolled; approve one with: calyx authority approve DIR REQUEST"
            )
        screen.emit(found)


def stop(directory: Directory, verbose: Verbose = False) -> None:
    """Stop the key authority in DIR.

    [bold]Examples[/bold]
    calyx authority stop ~/authority
    """
    from calyx.authority.launch import stop_running
    from calyx.cli.terminal.console import terminal

    with terminal(verbose=verbose) as screen:
        with screen.busy("stopping"):
            ran = stop_running(directory)
        screen.say("stopped" if ran else "it was not served")


def log(directory: Directory, as_json: AsJson = False, verbose: Verbose = False) -> None:
    """Check the log of releases and refusals, and show its last entries.

    [bold]Examples[/bold]
    calyx authority log ~/authority
    calyx authority log ~/authority --json
    """
    from calyx.authority.launch import verify_log
    from calyx.cli.terminal.console import terminal

    with terminal(as_json=as_json, verbose=verbose) as screen:
        report = verify_log(directory)
        screen.say(f"{len(report.entries)} entries, chain complete, head {report.head[:16]}…")
        for entry in report.entries[-10:]:
            screen.line(str(entry.event))
        if as_json:
            screen.emit({"entries": len(report.entries), "head": report.head})


def witness(
    directory: Directory,
    head: Annotated[Path, typer.Argument(metavar="HEAD.json")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where the signed statement goes.", show_default="printed"
        ),
    ] = None,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Sign the head of a run, or of an audit of it, as a witness.

    HEAD.json is the file that calyx audit head makes. It is written into a log of its own with the
    time and, for an audit, its number among the audits of this run that were brought here; the
    same head gets the same statement again. The run itself is not looked at: the signature says
    that it had this head at this time.

    The owner of DIR must not be the one who is audited. It works whether or not the key authority
    is served.

    [bold]Examples[/bold]
    calyx authority witness ~/authority head.json --out witness.json
    """
    from calyx.authority.launch import witness as sign
    from calyx.cli.arguments.request_file import request_text
    from calyx.cli.terminal.console import facts, terminal
    from calyx.shared.errors import UsageError

    with terminal(as_json=as_json, verbose=verbose) as screen:
        text = request_text(head)
        made = sign(directory, text, passphrase=_passphrase(passphrase_file))
        if out is not None:
            try:
                out.write_text(made.to_json() + "\n", encoding="utf-8")
            except OSError as error:
                raise UsageError(
                    f"{out} cannot be written: {error.strerror}",
                    hint="name another file with --out",
                ) from None
        what = f"audit {made.audit} of it that was shown here" if made.audit else "the run alone"
        screen.show(facts({"run": made.run, "signed": what, "since": made.time[:19] + " UTC"}))
        screen.line(f"written to {out}" if out is not None else made.to_json())
        screen.emit({"run": made.run, "audit": made.audit, "time": made.time, "key": made.witness})


def _passphrase(path: Path | None) -> bytes | None:
    from calyx.shared.errors import ConfigError

    if path is None:
        return None
    try:
        passphrase = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}",
            hint="check the path given to --passphrase-file",
        ) from None
    if not passphrase:
        raise ConfigError(f"the passphrase file {path} is empty", hint="put the passphrase in it")
    return passphrase


for command in (init, serve, approve, revoke, status, stop, log, witness):
    app.command(help=help_text(command))(command)
