"""``calyx audit``: what a run really gave away, measured."""

from __future__ import annotations

import typer

from cli.audit_mutants import mutants
from cli.audit_selftest import selftest
from cli.help_text import help_text

app = typer.Typer(no_args_is_help=True, help="Audit a run: what was guaranteed, what was measured.")

for command in (selftest, mutants):
    app.command(help=help_text(command))(command)
