"""``calyx plan``: noise, epsilon and traffic of a run before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from calyx.cli.arguments.options import AsJson, DataDir, OwnTask, Preset, Settings, Verbose

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from calyx.cli.commands.forecast import ClientPlan, Forecast
    from calyx.cli.terminal.console import Terminal
    from calyx.shared.encryption.parameters import SealingParameters

_ROWS_SHOWN = 12
_CHART_HEIGHT = 6


def plan(
    preset: Preset = "digits-cnn",
    settings: Settings = None,
    data_dir: DataDir = None,
    task: OwnTask = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what a run will cost in privacy and traffic, without training anything.

    Give the name of a preset (calyx presets lists them) or a TOML file of your own. The data are
    loaded and divided as in the run. For each record count among the clients, the plan finds the
    noise that keeps the promised epsilon over all rounds.

    Two accountants are used: privacy loss distributions (PLD) and Rényi DP (RDP). Both are upper
    bounds, and the smaller one counts. For the integer noise of sealed sums only RDP has a bound;
    PLD then shows a dash.

    [bold]Examples[/bold]
    calyx plan
    calyx plan digits-cnn --set privacy.epsilon=3 --set training.rounds=100
    calyx plan my-run.toml --data-dir ~/mnist --json
    """
    from calyx.cli.terminal.console import terminal

    with terminal(as_json=as_json, verbose=verbose) as screen:
        with screen.busy("finding the noise"):
            from calyx.cli.commands.forecast import forecast
            from calyx.simulations.presets import resolve

            found = forecast(resolve(preset, settings or (), data_dir, task=task))
        _show(screen, found)
        screen.emit(found.as_dict())


def _show(screen: Terminal, found: Forecast) -> None:
    from calyx.cli.terminal.console import facts

    screen.line(found.config.name, style="bold")
    screen.show(facts(_promise(found)))
    for warning in found.warnings:
        screen.warn(warning)
    screen.line()
    screen.show(_plan_table(found))
    if len(found.plans) > _ROWS_SHOWN:
        screen.line(f"{_ROWS_SHOWN} of {len(found.plans)} record counts; --json lists all")
    if found.curve:
        screen.line()
        for line in _curve(found, screen.human.width):
            screen.line(line)
    screen.line()
    screen.show(facts(_traffic(found)))


def _promise(found: Forecast) -> dict[str, str | Text]:
    from rich.text import Text

    from calyx.cli.terminal.formatting import NO_PRIVACY, count_text
    from calyx.shared.privacy.epsilon_text import delta_text, epsilon_text, promise_text

    config, first = found.config, found.plans[0].plan
    federation = config.federation
    per_round = f", {config.cohort_size} asked each round" if federation.clients_per_round else ""
    run = (
        f"{count_text(federation.clients, 'client')}{per_round}, "
        f"{count_text(config.training.rounds, 'round')}, "
        f"{count_text(found.train_records, 'training record')}"
    )
    if not config.is_private:
        return {"privacy": Text(f"{NO_PRIVACY} (ε = ∞)", style="bold"), "run": run}
    privacy = config.privacy
    promise = Text.assemble(
        (f"ε ≤ {promise_text(privacy.epsilon)}", "bold"),
        f" at δ = {delta_text(privacy.delta)} for each {found.whom}",
    )
    counts = {
        "public": "each client's record count is public",
        "nominal": f"all clients declare {privacy.nominal_records:,} records",
    }
    by_record = found.epsilon_record
    others = f"ε ≤ {epsilon_text(by_record)} at the same δ" if by_record is not None else ""
    return {
        "privacy": promise,
        **(
            {"for one record": f"{others}, and for a client whose data are replaced"}
            if others
            else {}
        ),
        "neighbours": first.relation,
        "noise": f"{privacy.noise}, clip norm {privacy.clip_norm:g}",
        "counts": counts[privacy.record_counts],
        "run": run,
    }


def _plan_table(found: Forecast) -> Table:
    from calyx.cli.terminal.console import table
    from calyx.cli.terminal.formatting import bound_text, number_text
    from calyx.shared.privacy.epsilon_text import epsilon_text

    steps = ("records", "clients", "batch", "steps/\nround", "steps")
    privacy = ("q", "σ", "ε one\nround", "ε end\nPLD", "ε end\nRDP")
    headings = (*steps, *privacy) if found.config.is_private else steps
    made = table(*headings, right=headings)
    for entry in _chosen(found.plans):
        own, once, total = entry.plan, entry.round_cost, entry.total_cost
        cells = [
            f"{own.declared_records:,}",
            f"{entry.clients:,}",
            f"{own.expected_batch_size:g}",
            f"{own.steps_per_round:,}",
            f"{own.steps_per_round * own.rounds:,}",
        ]
        if found.config.is_private:
            cells += [f"{own.round_event.sampling_rate:.3f}", number_text(own.noise_multiplier)]
            cells += [epsilon_text(once.epsilon)]
            cells += [bound_text(value, total.epsilon) for value in (total.pld, total.rdp)]
        made.add_row(*cells)
    return made


def _chosen(plans: Sequence[ClientPlan]) -> list[ClientPlan]:
    """Rows for the terminal: all, or that many from smallest to largest."""
    last, shown = len(plans) - 1, min(len(plans), _ROWS_SHOWN)
    return [plans[round(i * last / max(shown - 1, 1))] for i in range(shown)]


def _curve(found: Forecast, width: int) -> list[str]:
    """Epsilon over rounds as columns, as many as fit."""
    from calyx.cli.terminal.chart import columns, thinned
    from calyx.shared.privacy.epsilon_text import epsilon_text

    cell = max(4, len(str(found.config.training.rounds)) + 1)
    curve = thinned(found.curve, max((min(width, 100) - 9) // cell, 2))
    values = [cost.epsilon for _, cost in curve]
    top = max(values)
    rows = columns(values, _CHART_HEIGHT, top)
    labels = [epsilon_text(top), *[""] * (_CHART_HEIGHT - 2), "0"]
    lines = ["ε spent after this many rounds"]
    for label, row in zip(labels, rows, strict=True):
        lines.append(f"{label:>7} │" + "".join(" " + level * (cell - 1) for level in row).rstrip())
    lines.append(" " * 8 + "└" + "─" * (cell * len(values)))
    lines.append(" " * 9 + "".join(f"{number:>{cell}}" for number, _ in curve))
    return lines


def _traffic(found: Forecast) -> dict[str, str | Text]:
    from calyx.cli.terminal.formatting import bytes_text

    cohort, rounds = found.config.cohort_size, found.config.training.rounds
    down, up = found.bytes_down, found.bytes_up
    lines: dict[str, str | Text] = {
        "model": f"{found.parameters:,} parameters, sent to clients as float32",
        "a client, a round": f"{bytes_text(down)} down, {bytes_text(up)} up",
        "the server": f"{bytes_text(up * cohort)} in and {bytes_text(down * cohort)} out a round, "
        f"{bytes_text((up + down) * cohort * rounds)} in all",
    }
    if found.sealing is None:
        return lines | {"updates": "not sealed: the server sees each of them"}
    return lines | _sealing(found.sealing, found.config.secure_aggregation.min_contributors)


def _sealing(p: SealingParameters, min_contributors: int) -> dict[str, str | Text]:
    moduli = "+".join(map(str, p.coeff_mod_bits))
    noise = f", {p.noise_headroom_bits:.1f} bits of noise" if p.scheme == "bfv" else ""
    return {
        "updates": f"sealed, {p.expansion:.2f}x float32; only sums of at least "
        f"{min_contributors} clients are decrypted",
        "encryption": f"{p.scheme.upper()}, N = {p.poly_modulus_degree}, moduli {moduli} bits, "
        f"{p.security_bits}-bit security",
        "packing": f"{p.fields_per_slot} values a slot, fields of {p.field_bits} bits, values up "
        f"to ±{p.value_bound:,}",
        "headroom": f"{p.field_headroom_bits:.1f} bits of field{noise}",
    }
