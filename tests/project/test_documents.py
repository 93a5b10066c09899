"""What the documents name is there: tables, paths, modules, links, commands, functions, tests."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import click
import pytest
import torch
import typer

from calyx.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FOLDERS = "audit|authority|bench|calyx|cli|client|docs|examples|server|shared|simulations|tests"
# History: a change or a decision of its day may name what is gone since.
HISTORY = {ROOT / "CHANGELOG.md", ROOT / "docs" / "adr" / "0001-generic-top-level-package-names.md"}
# A server's and an authority's own folders are called so there.
OF_OPERATORS = ROOT / "docs" / "deploy"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


documents = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def prose(document: Path) -> str:
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def quoted(document: Path) -> list[str]:
    """What stands between backticks outside code blocks, line breaks as spaces."""
    return [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", prose(document))]


def fenced(document: Path, *languages: str) -> Iterator[str]:
    for language, block in FENCE.findall(document.read_text(encoding="utf-8")):
        if language in languages:
            yield block


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- tables that restate code ---------------------------------------------------------


def test_generated_tables_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr  # it says: run make docs


def test_every_table_that_can_be_generated_stands_in_a_document(generate: ModuleType) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    named = re.findall(r"^<!-- generated: ([^>]+) -->$", text, re.MULTILINE)
    assert sorted(named) == sorted(generate.TABLES)


def test_a_changed_table_is_not_current(generate: ModuleType) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert generate.renewed(text) == text
    assert generate.renewed(text.replace("`training.rounds`", "`training.runds`")) == text


# --- paths, modules, links ------------------------------------------------------------


@documents
def test_every_path_exists(document: Path) -> None:
    if document in HISTORY:
        pytest.skip("history")
    folders = "docs|examples|tests" if OF_OPERATORS in document.parents else FOLDERS
    path = re.compile(rf"({folders})/[\w./-]*")
    file = re.compile(r"[\w-]+\.(py|sh|proto|j2|md)")
    missing = []
    for words in quoted(document):
        if path.fullmatch(words):
            found = (ROOT / words.rstrip("/")).exists()
        elif file.fullmatch(words):
            found = bool(list_of_files().get(words))
        else:
            continue
        if not found:
            missing.append(words)
    assert missing == []


@cache
def list_of_files() -> dict[str, Path]:
    folders = [ROOT / name for name in FOLDERS.split("|") if name != "calyx"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return {path.name: path for path in [*files, *ROOT.glob("*.*")]}


@documents
def test_every_module_exists(document: Path) -> None:
    names = re.findall(r"(?<![\w/.-])calyx(?:\.\w+)+(?::\w+)?", " ".join(quoted(document)))
    assert [name for name in names if document not in HISTORY and not resolves(name)] == []


def resolves(dotted: str) -> bool:
    """Whether a module, or something that one defines, has this name."""
    words = re.split(r"[.:]", dotted)
    for cut in range(len(words), 1, -1):
        place = ROOT.joinpath(*words[1:cut])
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return cut == len(words) or ".".join(words[cut:]) in defined_in(file)
    return (ROOT / "calyx" / "__init__.py").read_text().count(f'"{words[1]}"') > 0


@cache
def defined_in(file: Path) -> set[str]:
    """Names at the top of a module, and those of its classes with the class in front."""

    def names(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from names(node.body, f"{node.name}.")
            if isinstance(node, ast.ImportFrom) and file.name == "__init__.py":
                yield from (alias.asname or alias.name for alias in node.names)
            if isinstance(node, ast.Assign):
                yield from (prefix + t.id for t in node.targets if isinstance(t, ast.Name))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield prefix + node.target.id

    return set(names(ast.parse(file.read_text(encoding="utf-8")).body))


@documents
def test_every_link_leads_somewhere(document: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"https?://", target):
            continue
        place, _, anchor = target.partition("#")
        path = (document.parent / place).resolve() if place else document
        if not path.exists() or (anchor and anchor not in anchors(path)):
            lost.append(target)
    assert lost == []


def anchors(document: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# --- commands -------------------------------------------------------------------------


@documents
def test_every_command_and_option_exists(document: Path) -> None:
    if document in HISTORY:
        pytest.skip("history")
    lines = [words for words in quoted(document) if re.match(r"(calyx|make|python -m) ", words)]
    for block in fenced(document, "sh", "console", ""):
        lines += re.sub(r"\\\n", " ", block).splitlines()
    faults = [fault for line in lines for fault in faults_of(line)]
    assert faults == []


def faults_of(line: str) -> Iterator[str]:
    """Commands in a line of a shell that are none, and options that they do not have."""
    for found in re.finditer(
        r"(?:^|[$;(&] *|\b(?:do|in_background) )(calyx|make|python) (.*)", line
    ):
        words = found[2].split("#")[0].split(";")[0].replace("$(", "").strip("$ &)")
        try:
            arguments = shlex.split(words)
        except ValueError:
            arguments = words.split()
        match found[1]:
            case "make":
                targets = (ROOT / "Makefile").read_text(encoding="utf-8")
                named = [word for word in arguments if word.isalpha() or "-" in word][:1]
                if not all(re.search(rf"^{t}:", targets, re.MULTILINE) for t in named):
                    yield line
            case "python" if arguments[:1] == ["-m"]:
                module = ROOT.joinpath(*arguments[1].split(".")).with_suffix(".py")
                if arguments[1] not in ("venv", "bench.NAME"):
                    options = [a for a in arguments[2:] if a.startswith("--")]
                    text = module.read_text(encoding="utf-8") if module.is_file() else ""
                    if not text or any(f'"{option}"' not in text for option in options):
                        yield line
            case "calyx":
                yield from command_faults(arguments, line)


def command_faults(arguments: list[str], line: str) -> Iterator[str]:
    command: click.Command = typer.main.get_command(app)
    words = list(arguments)
    while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z-]+", words[0]):
        if words[0].startswith("--"):
            break
        inner = command.commands.get(words.pop(0))
        if inner is None:
            yield f"no such command: {line}"
            return
        command = inner
    known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "-h"}
    for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", " ".join(words)):
        if option not in known:
            yield f"no option {option}: {line}"


@pytest.mark.parametrize(
    "line",
    [
        "$ calyx simulat",
        "calyx client enrol DIR",
        "calyx simulate --sett seed=1",
        "for k in 0; do calyx client halt device; done",
        "$ make demo-deply",
        "python -m bench.utilty --json",
        "python -m bench.engine --jsn",
    ],
)
def test_the_search_for_commands_finds_what_is_wrong(line: str) -> None:
    assert list(faults_of(line))


# --- code in the documents ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "docs/guide.md"])
def test_what_is_shown_from_python_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = [b for b in fenced(ROOT / name, "python") if "from calyx import run" in b]
    exec(compile(block, name, "exec"), {"__name__": "__main__"})
    accuracy, epsilon, folder = capsys.readouterr().out.split()
    assert 0.5 < float(accuracy) <= 1 and 0 < float(epsilon) <= 3.0001
    assert Path(folder, "model.safetensors").is_file()


def test_the_model_of_ones_own_in_the_guide_is_one() -> None:
    (block,) = [b for b in fenced(ROOT / "docs" / "guide.md", "python") if "mymodels" in b]
    names: dict[str, object] = {}
    exec(compile(block, "mymodels.py", "exec"), names)
    model = names["small"]((1, 8, 8), 10)  # type: ignore[operator]
    assert model(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


# --- the map of ARCHITECTURE.md and the claims of SECURITY.md -------------------------


def rows(document: Path, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its two first lines."""
    text = document.read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ")[0]
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in row.split("|")[1:-1]] for row in table[0].splitlines()[2:]]


def test_the_path_of_an_update_has_few_steps_each_in_a_file() -> None:
    steps = rows(ROOT / "ARCHITECTURE.md", "The path of one update")
    assert 8 <= len(steps) <= 12
    assert [step[0].split(".")[0] for step in steps] == [str(n + 1) for n in range(len(steps))]
    for _, _, file in steps:
        assert (ROOT / file.strip("`")).is_file(), file


@pytest.mark.parametrize(
    "row", rows(ROOT / "ARCHITECTURE.md", "Where do I find"), ids=lambda r: r[0]
)
def test_what_can_be_looked_up_is_defined_there(row: list[str]) -> None:
    _, files, functions = (re.findall(r"`([^`]+)`", cell) or cell for cell in row)
    assert len(files) == len(functions)
    for file, function in zip(files, functions, strict=True):
        assert function in defined_in(ROOT / file), f"{file} has no {function}"


def test_every_claim_of_the_security_text_names_tests_that_exist() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^ *def (test_\w+)", sources, re.MULTILINE))
    claims = rows(ROOT / "SECURITY.md", "Tests of these claims")
    assert len(claims) > 20
    for claim, tests in claims:
        named = re.findall(r"`(\w+)`", tests)
        assert named and set(named) <= defined, f"{claim}: {set(named) - defined}"


# --- words ----------------------------------------------------------------------------


@documents
def test_prose_is_plain(document: Path) -> None:
    """The decision records up to 0015 are left as they were accepted."""
    if document in HISTORY or re.match(r"00(0\d|1[0-5])-", document.name):
        pytest.skip("history")
    odd = r"\b(whoever|nobody|anybody|somebody|everybody|anew|so many)\b"
    written = re.sub(r"(?s)<!-- generated: .*?<!-- end of generated text -->", "", prose(document))
    assert re.findall(odd, written, re.IGNORECASE) == []
