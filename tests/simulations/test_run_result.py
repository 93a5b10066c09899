"""A result in a notebook: figures rounded the safe way, escaped text, nothing from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from calyx import RunResult

START = {"event": "start", "unit": "record", "noise": "distributed", "epsilon_record": None}


class Texts(HTMLParser):
    """Tags, and the text of each row of a table: its heading and what it says."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.rows: dict[str, str] = {}
        self._cells: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self._cells = []
        if tag in ("th", "td"):
            self._cells.append("")

    def handle_data(self, data: str) -> None:
        if self._cells:
            self._cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "tr":
            heading, said = self._cells
            self.rows[heading] = said


@pytest.fixture
def result(tmp_path: Path) -> RunResult:
    """How a run ended whose folder holds no journal yet."""
    return RunResult(
        accuracy=0.8974,
        metrics={"accuracy": 0.8974},
        loss=0.4271,
        epsilon_max=2.9901,
        delta=1e-4,
        noise_multiplier=2.6582,
        rounds=3,
        clients=10,
        rejected=1,
        rounds_with_effect=3,
        seconds=27.04,
        seconds_per_round=0.44,
        run_dir=str(tmp_path),
    )


def with_journal(result: RunResult, accuracies: list[float | None], **start: Any) -> RunResult:
    events = [START | start, {"event": "reply", "round": 1}]
    events += [{"event": "round", "accuracy": accuracy} for accuracy in accuracies]
    lines = "".join(json.dumps(event) + "\n" for event in events)
    Path(result.run_dir, "metrics.jsonl").write_text(lines)
    return result


def shown(result: RunResult) -> dict[str, str]:
    return Texts(result._repr_html_()).rows


def test_every_figure_is_shown_and_epsilon_is_never_rounded_down(result: RunResult) -> None:
    rows = shown(with_journal(result, [0.3, 0.6, 0.8974]))
    assert rows["test accuracy"].startswith("89.7 %")
    assert rows["privacy"] == "ε = 3.00 at δ = 0.0001 for each record"
    assert rows["noise added by"] == "the clients, each a share of what a sealed sum needs"
    assert rows["rounds"] == "3 (0.4 s each, 27.0 s in all)"
    assert (rows["clients"], rows["rejected replies"]) == ("10", "1")
    assert rows["run folder"] == result.run_dir


def test_without_privacy_it_says_so(result: RunResult) -> None:
    rows = shown(replace(result, epsilon_max=None, noise_multiplier=0.0))
    assert rows["privacy"] == "no differential privacy (ε = ∞)"
    assert "noise multiplier" not in rows


def test_a_client_level_promise_names_its_neighbours_and_what_it_is_for_one_record(
    result: RunResult,
) -> None:
    rows = shown(with_journal(result, [], unit="client", noise="local", epsilon_record=1.001))
    assert rows["privacy"].endswith("for each client (its data replaced)")
    assert rows["for one record"] == "ε ≤ 1.01 over all rounds"


def test_the_course_of_accuracy_is_a_line_with_a_point_a_round(result: RunResult) -> None:
    page = with_journal(result, [0.1, None, 0.5, 0.9])._repr_html_()
    (points,) = re.findall(r'points="([^"]+)"', page)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert len(heights) == 3  # a diverged model has no accuracy
    assert heights == sorted(heights, reverse=True)
    assert "from 10.0 % to 90.0 %" in page


REGRESSION = [
    {"name": "mae", "shown": "MAE <x>", "is_share": False, "higher_is_better": False},
    {"name": "r2", "shown": "R²", "is_share": False, "higher_is_better": True},
]


def regression(result: RunResult) -> RunResult:
    """A run that was judged by an error, with what its clients told."""
    events: list[dict[str, Any]] = [START | {"metrics": REGRESSION}]
    for mae in (61.0, None, 43.21):
        clients = {"client-mae": 40.0, "client-mae-worst": 71.5}
        metrics = {"mae": mae, "r2": 0.4518}
        events.append(
            {"event": "round", "accuracy": None, "metrics": metrics, "clients": clients},
        )
    lines = "".join(json.dumps(event) + "\n" for event in events)
    Path(result.run_dir, "metrics.jsonl").write_text(lines)
    return replace(result, accuracy=None, metrics={"mae": 43.21, "r2": 0.4518})


def test_a_task_without_accuracy_shows_its_own_metrics(result: RunResult) -> None:
    found = regression(result)
    rows = shown(found)
    assert rows["test MAE <x>"].startswith("43.21 (lower is better)")
    assert rows["other metrics"] == "R² 0.452"
    assert rows["on clients' records"] == "MAE <x> 40.00 on average, 71.50 for the worst tenth"
    page = found._repr_html_()
    assert "MAE &lt;x&gt; by round, from 61.00 to 43.21" in page
    assert "test accuracy" not in page and "accuracy by" not in page and "<x>" not in page


def test_metrics_outlive_the_folder_by_their_names(result: RunResult) -> None:
    metrics: dict[str, float | None] = {"word_errors": 0.25, "accuracy": None}
    rows = shown(replace(result, accuracy=None, metrics=metrics))
    assert rows["test word errors"].strip() == "0.250"
    assert rows["other metrics"] == "accuracy -"


@pytest.mark.parametrize("accuracies", [[], [0.5], [0.5, 0.5]], ids=str)
def test_few_or_equal_accuracies_make_no_trouble(
    accuracies: list[float | None], result: RunResult
) -> None:
    page = with_journal(result, accuracies)._repr_html_()
    assert ("polyline" in page) == (len(accuracies) > 1)


@pytest.mark.parametrize(
    "journal",
    [
        None,
        "",
        "{",
        "[]\n",
        '{"event": "start", "metrics": 1}\n',
        '{"event": "round", "metrics": 1}\n',
        '{"event": "start"}\n[1]\n',
        "\xff",
    ],
)
def test_a_result_outlives_its_folder(journal: str | None, result: RunResult) -> None:
    if journal is not None:
        Path(result.run_dir, "metrics.jsonl").write_text(journal, encoding="latin-1")
    rows = shown(result)
    assert rows["privacy"] == "ε = 3.00 at δ = 0.0001"
    assert "noise added by" not in rows


def test_a_run_that_learned_nothing_and_a_model_that_diverged_are_told(result: RunResult) -> None:
    rows = shown(replace(result, rounds_with_effect=0, loss=float("nan")))
    assert rows["rounds"].endswith("nothing was learned: no round had an effect")
    assert rows["test loss"] == "–"
    assert "2 changed the model" in shown(replace(result, rounds_with_effect=2))["rounds"]


def test_nothing_in_it_is_markup_but_our_own_and_nothing_is_loaded(
    result: RunResult, tmp_path: Path
) -> None:
    folder = tmp_path / "<script>alert(1)<" / "script>&amp;"
    folder.mkdir(parents=True)
    hostile = replace(result, run_dir=str(folder))
    page = with_journal(hostile, [0.1, 0.2], unit="<img src=x>", noise="<b>")._repr_html_()
    texts = Texts(page)
    assert texts.rows["run folder"] == str(folder)
    assert texts.rows["privacy"].endswith("for each <img src=x>")
    known = {"table", "tbody", "tr", "th", "td", "b", "code", "svg", "title", "polyline"}
    assert texts.tags <= known
    assert not re.search(r"\b(src|href|url|import|on\w+)\s*[=(:]", re.sub(r"&lt;.*?&gt;", "", page))


def test_it_is_readable_on_a_light_and_on_a_dark_page(result: RunResult, tmp_path: Path) -> None:
    """Text has the page's own colour: dark on light, light on dark."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    image = pytest.importorskip("PIL.Image")
    page = with_journal(result, [0.1, 0.6, 0.5, 0.9])._repr_html_()
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=640,300"]
    darkest_and_lightest = {}
    for theme, colours in {"light": "#fff;color:#111", "dark": "#111;color:#eee"}.items():
        file, picture = tmp_path / f"{theme}.html", tmp_path / f"{theme}.png"
        body = f'<!doctype html><meta charset="utf-8"><body style="background:{colours}">{page}'
        file.write_text(body, encoding="utf-8")
        subprocess.run(
            [*command, f"--screenshot={picture}", file.as_uri()],
            capture_output=True,
            check=True,
            timeout=60,
        )
        with image.open(picture) as opened:
            darkest_and_lightest[theme] = opened.convert("L").getextrema()
    assert darkest_and_lightest["light"][0] < 60
    assert darkest_and_lightest["dark"][1] > 190
