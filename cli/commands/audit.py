"""``calyx audit``: what a run really gave away, measured."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from calyx.cli.arguments.help_text import help_text
from calyx.cli.arguments.options import AsJson, Verbose
from calyx.cli.commands.audit_mutants import mutants
from calyx.cli.commands.audit_selftest import selftest
from calyx.cli.commands.report import (
    RunDir,
    metrics_by_name,
    require_report_packages,
    short,
    show_headline,
)

_GROUP = """Audit a run: compare what is guaranteed with what attacks can measure.

RUN_DIR is the folder of a finished run. calyx report gives the guarantee alone, in seconds.

[bold]Examples[/bold]
calyx simulate --out runs/first
calyx audit run runs/first
calyx audit verify runs/first/audit/report.json
"""
app = typer.Typer(no_args_is_help=True, help=help_text(_GROUP))

Names = Annotated[str, typer.Option(metavar="A,B", help="Attacks to leave out.")]
Only = Annotated[str, typer.Option(metavar="A,B", help="Run these attacks only.")]

TsaCa = Annotated[
    Path | None,
    typer.Option(metavar="FILE.pem", help="Certificates of a time-stamping authority."),
]


def run(
    run_dir: RunDir,
    skip: Names = "",
    only: Only = "",
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Attack a finished run and write its whole privacy report.

    The run is repeated with canary records, whose presence is decided by coin flips, and under the
    eyes of an observer who sees what each party would see. What they find is compared with what is
    guaranteed. Everything is kept as evidence, so that calyx audit verify can compute each figure
    again. The default preset takes at most ten minutes on two cores.

    The attacks are unprotected (the same run without privacy, for what it costs), canaries,
    membership and inversion. Those that do not fit the run's task are left out, with the reason.

    [bold]Examples[/bold]
    calyx audit run runs/first
    calyx audit run runs/first --skip membership,inversion
    calyx audit run runs/first --only canaries --json
    """
    from calyx.cli.terminal.console import terminal
    from calyx.cli.terminal.progress import progress

    started = time.monotonic()
    require_report_packages("calyx audit")
    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("reading the run"):
            from calyx.audit.run import audit_run, lower_bounds_by_method

        with progress(screen) as tell:
            done = audit_run(run_dir, skip=_names(skip), only=_names(only), progress=tell)
        found = done.report
        show_headline(screen, found)
        for step in found.audit.steps:
            if not step.done:
                screen.line(f"left out: {step.name} ({step.reason})", style="dim")
        screen.line(f"report: {short(done.html_path)}")
        screen.line(f"verify: calyx audit verify {short(done.json_path)}")
        screen.emit(
            {
                "guarantee_epsilon": found.guarantee.epsilon,
                "lower_bounds": lower_bounds_by_method(found),
                "status": found.headline.status,
                "metrics": metrics_by_name(found),
                "seconds": round(time.monotonic() - started, 1),
                "report": str(done.html_path),
            }
        )
    if found.headline.status == "contradicted":
        raise typer.Exit(1)


def verify(
    report: Annotated[
        Path, typer.Argument(metavar="REPORT.json", help="The report in its run folder.")
    ],
    authority_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="authority.pub of a witness that must have signed the head."
        ),
    ] = None,
    tsa_ca: TsaCa = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compute every figure of a report again, from the evidence in its run folder.

    REPORT.json is the report in its run folder. No training data are needed. The command fails if
    one byte of the report, of its evidence, of a ledger or of any other file of the run differs
    from when the report was made, or if the coins of the canaries were not committed to before the
    first round.

    It shows who else keeps the head of the report. With --authority-key it fails if this witness
    does not, or knows of more audits than the folder holds. Get the key from its owner, and not
    from the person who gave you the report.

    [bold]Examples[/bold]
    calyx audit verify runs/first/audit/report.json
    calyx audit verify runs/first/audit/report.json \\
        --authority-key authority.pub
    """
    from calyx.cli.terminal.console import facts, terminal

    require_report_packages("calyx audit")
    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("computing the report again"):
            from calyx.audit.verify import verify as verify_report

            key = _key(authority_key) if authority_key is not None else None
            found = verify_report(report, authority_key=key, tsa_ca=tsa_ca)
        page = "report.json and report.html" if found.html else "report.json"
        screen.line("verified", style="bold green")
        screen.show(
            facts(
                {
                    "same, byte by byte": page,
                    "evidence": f"{found.pieces} pieces, head {found.head}",
                    "run": f"{found.files} files, {found.ledgers} ledgers",
                    "ε": found.report.headline.title,
                }
            )
        )
        for one in found.witnesses:
            by = one.by if one.is_known else f"{one.by} (a key that you did not name)"
            screen.line(f"{one.what}: witnessed by {by} since {one.since}")
        if not any(one.is_known for one in found.witnesses):
            screen.warn(
                "no witness whose key you named keeps this head: anyone who can write the folder "
                "can have made run and audit again as a whole, or chosen this audit among several"
            )
        screen.emit(
            {
                "verified": True,
                "guarantee_epsilon": found.report.guarantee.epsilon,
                "evidence": found.pieces,
                "files": found.files,
                "ledgers": found.ledgers,
                "evidence_head": found.head,
                "witnesses": [asdict(one) for one in found.witnesses],
                "seconds": round(found.seconds, 3),
            }
        )


def head(
    run_dir: RunDir,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the head goes.")] = Path(
        "head.json"
    ),
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write the head of a run, or of its audit, to a file for a witness to sign.

    Take the file to the operator of a key authority, who signs it with calyx authority witness.
    Anyone who is not audited can keep a key authority for this with calyx authority init; it need
    not be served. Or have the head stamped by a time-stamping authority (RFC 3161).

    Do so before you look at the result: a witness counts the audits that it is shown.

    [bold]Examples[/bold]
    calyx audit head runs/first
    calyx audit head runs/first --out first-head.json
    """
    from calyx.cli.terminal.console import facts, terminal
    from calyx.shared.errors import UsageError

    require_report_packages("calyx audit")
    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("reading the run"):
            from calyx.audit.evidence.witnesses import heads_of

            request = heads_of(run_dir).request
        try:
            out.write_text(request.to_json() + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"{out} cannot be written: {error.strerror}",
                hint="name another file with --out",
            ) from None
        digest = request.audit_head or request.run_head
        what = "audit" if request.audit_head else "run"
        screen.show(facts({"run": request.run, f"head of the {what}": digest}))
        screen.line(f"to be signed: calyx authority witness DIR {out}")
        screen.line(f"or stamped: openssl ts -query -sha256 -cert -digest {digest} -out head.tsq")
        screen.line(f"then: calyx audit witness {short(run_dir)} WITNESS.json")
        screen.emit({"run": request.run, "run_head": request.run_head, "head": digest})


def witness(
    run_dir: RunDir,
    word: Annotated[
        Path | None,
        typer.Argument(metavar="[WITNESS.json]", help="The file that a witness has signed."),
    ] = None,
    timestamp: Annotated[
        Path | None, typer.Option(metavar="FILE.tsr", help="RFC 3161 response on the head.")
    ] = None,
    tsa_ca: TsaCa = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Keep a witness's signed statement, or a time stamp, beside the report of a run.

    WITNESS.json is the file that calyx authority witness makes.

    [bold]Examples[/bold]
    calyx audit witness runs/first witness.json
    calyx audit witness runs/first --timestamp head.tsr --tsa-ca tsa.pem
    """
    from calyx.cli.arguments.request_file import request_text
    from calyx.cli.terminal.console import terminal
    from calyx.shared.errors import UsageError

    require_report_packages("calyx audit")
    with terminal(as_json=as_json, verbose=verbose) as screen:
        if word is None and timestamp is None:
            raise UsageError(
                "neither a witness's file nor a time stamp was given",
                hint="name a file that a witness has signed, or a --timestamp",
            )
        if timestamp is not None and tsa_ca is None:
            raise UsageError(
                "a time stamp cannot be checked without its authority's certificates",
                hint="name them with --tsa-ca",
            )
        from calyx.audit.evidence.witnesses import keep, keep_time_stamp

        since = {}
        if word is not None:
            found = keep(run_dir, request_text(word))
            since["witness"] = found.time
        if timestamp is not None and tsa_ca is not None:
            since["time stamp"] = keep_time_stamp(run_dir, timestamp, tsa_ca)
        for what, time_said in since.items():
            screen.say(f"{what} kept, since {time_said}")
        screen.emit({"kept": since})


def compare(
    run_dirs: Annotated[
        list[Path], typer.Argument(metavar="RUN_DIR...", help="Folders of finished runs.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the page goes.")] = Path(
        "comparison.html"
    ),
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare finished runs on one page: the metric of their task against epsilon.

    [bold]Examples[/bold]
    calyx audit compare runs/first runs/second
    calyx audit compare runs/* --out all-runs.html --json
    """
    from calyx.cli.terminal.console import table, terminal

    require_report_packages("calyx audit")
    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("reading the runs"):
            from calyx.audit.compare import compare as compare_runs
            from calyx.audit.compare import write_comparison
            from calyx.audit.report.tables import compared_headings, compared_lines

            found = compare_runs(run_dirs)
            write_comparison(found, out)
        headings, figures = compared_headings(found)
        shown = table(*headings, right=figures)
        for line in compared_lines(found):
            shown.add_row(*line)
        screen.show(shown)
        for note in found.notes:
            screen.warn(note)
        screen.line(f"page: {short(out)}")
        screen.emit({**found.model_dump(mode="json"), "report": str(out.absolute())})


def _key(path: Path) -> bytes:
    from calyx.shared.errors import ConfigError
    from calyx.shared.protocol.signatures.signed import is_hex

    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        text = ""
    if not is_hex(text, 64):
        raise ConfigError(f"{path} holds no key", hint="name the authority.pub of the witness")
    return bytes.fromhex(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


for command in (run, verify, head, witness, compare, selftest, mutants):
    app.command(help=help_text(command))(command)
