"""Code of an own task: found without being run, compared, and run only from what was compared."""

from __future__ import annotations

import hashlib
import os
import py_compile
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from calyx.client.agreed_task import AgreedTask, disagreement, load
from calyx.client.policy import Policy
from calyx.shared.errors import ConfigError, DataError, PolicyViolation, UsageError
from calyx.shared.tasks.find import own_task
from tests.client.policies import MINIMAL, config, owners, policy, refusal, run

TASK = """
from calyx import Task
task = Task(lambda outputs, labels: (outputs[:, 0] - labels) ** 2, {"mae": lambda p, y: 0.0})
"""
TRAP = "open({!r}, 'w').close()\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, and nothing of it in memory afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def module(folder: Path, text: str = TASK, name: str = "") -> str:
    """Write a module of a name of its own; returns the task's kind."""
    name = name or f"task_{uuid4().hex}"
    (folder / f"{name}.py").write_text(text)
    return f"{name}:task"


def trap(folder: Path) -> tuple[str, Path]:
    """Code that leaves a file behind when it is run."""
    sprung = folder / f"sprung-{uuid4().hex}"
    return TRAP.format(str(sprung)), sprung


def test_hash_of_a_module_is_that_of_its_file(folder: Path) -> None:
    kind = module(folder)
    file = folder / f"{kind.partition(':')[0]}.py"
    assert AgreedTask.present(kind).sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


def test_what_was_agreed_to_runs_and_is_the_task_of_the_run(folder: Path) -> None:
    kind = module(folder)
    agreed = [AgreedTask.present(kind)]
    assert not disagreement(kind, agreed)
    load(kind, agreed)
    assert own_task(kind).headline.name == "mae"
    load(kind, agreed)


def test_code_that_is_not_in_the_policy_is_never_run(folder: Path) -> None:
    text, sprung = trap(folder)
    kind, other = module(folder, text + TASK), AgreedTask.present(module(folder))
    for agreed in ([], [other], [AgreedTask(kind, "0" * 64)]):
        assert disagreement(kind, agreed)
        with pytest.raises(PolicyViolation):
            load(kind, agreed)
    assert not sprung.exists()


def test_a_changed_file_is_refused_with_both_hashes_and_what_to_do(folder: Path) -> None:
    kind = module(folder)
    agreed = AgreedTask.present(kind)
    text, sprung = trap(folder)
    (folder / f"{kind.partition(':')[0]}.py").write_text(text + TASK)
    reason = disagreement(kind, [agreed])
    now = AgreedTask.present(kind).sha256
    assert agreed.sha256[:12] in reason and now[:12] in reason and "calyx client join" in reason
    assert agreed.sha256 not in reason
    with pytest.raises(PolicyViolation, match="has changed"):
        load(kind, [agreed])
    assert not sprung.exists()


def test_a_file_that_changes_after_it_was_loaded_needs_another_start(folder: Path) -> None:
    kind = module(folder)
    load(kind, [AgreedTask.present(kind)])
    (folder / f"{kind.partition(':')[0]}.py").write_text(TASK + "# another\n")
    with pytest.raises(PolicyViolation, match="stop the device and join again"):
        load(kind, [AgreedTask.present(kind)])


def test_a_package_is_not_run_to_find_its_module_and_counts_in_the_hash(folder: Path) -> None:
    text, sprung = trap(folder)
    package = folder / f"pack_{uuid4().hex}"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "__init__.py").write_text(text)
    (package / "inner" / "tasks.py").write_text(TASK)
    kind = f"{package.name}.inner.tasks:task"
    agreed = AgreedTask.present(kind)
    assert disagreement(kind, []) and not disagreement(kind, [agreed])
    assert not sprung.exists() and package.name not in sys.modules
    (package / "inner" / "__init__.py").write_text(text + "# another\n")
    assert "has changed" in disagreement(kind, [agreed])
    load(kind, [AgreedTask.present(kind)])
    assert sprung.exists()
    assert own_task(kind).measured
    hashes = [hashlib.sha256((package / name).read_bytes()).hexdigest() for name in INSIDE]
    listed = "".join(f"{value}\n" for value in hashes)
    assert AgreedTask.present(kind).sha256 == hashlib.sha256(listed.encode()).hexdigest()


INSIDE = ("__init__.py", "inner/__init__.py", "inner/tasks.py")


@pytest.mark.parametrize(
    "kind",
    [
        "..task_of_ours:task",
        "task_of_ours.:task",
        "a..b:task",
        "a.1b:task",
        "task_of_ours/../other:task",
        "/etc/passwd:task",
        "task_of_ours:task:more",
        "task_of_ours",
        "task_of_ours:",
        ":task",
        "",
        "os:system",
        "sys:exit",
        "calyx.client.policy:Policy",
        "task_that_is_nowhere:task",
        "task_of_ours.task:task",
    ],
)
def test_names_that_lead_elsewhere_are_refused(folder: Path, kind: str) -> None:
    module(folder, name="task_of_ours")
    (folder / "other.py").write_text(TASK)
    with pytest.raises(UsageError):
        AgreedTask.present(kind)
    with pytest.raises(PolicyViolation):
        load(kind, [AgreedTask(kind, "0" * 64)])


def test_a_link_counts_by_what_it_leads_to(folder: Path) -> None:
    text, sprung = trap(folder)
    (folder / "good.txt").write_text(TASK)
    (folder / "bad.txt").write_text(text + TASK)
    link = folder / f"link_{uuid4().hex}.py"
    link.symlink_to(folder / "good.txt")
    kind = f"{link.stem}:task"
    agreed = AgreedTask.present(kind)
    link.unlink()
    link.symlink_to(folder / "bad.txt")
    assert "has changed" in disagreement(kind, [agreed])
    with pytest.raises(PolicyViolation):
        load(kind, [agreed])
    assert not sprung.exists()
    link.unlink()
    link.symlink_to(link.name)
    assert disagreement(kind, [agreed])


def test_a_compiled_copy_beside_the_file_is_not_run(folder: Path) -> None:
    """Python takes one of the same time and size as the source for the source."""
    text, sprung = trap(folder)
    kind = module(folder)
    name = kind.partition(":")[0]
    file, bad = folder / f"{name}.py", folder / "bad.py"
    bad.write_text(text)
    bad.write_text(text + "#" * (file.stat().st_size - len(text)))
    if bad.stat().st_size != file.stat().st_size:
        file.write_text(TASK + "#" * 1000 + "\n")
        bad.write_text(text + "#" * (file.stat().st_size - len(text)))
    os.utime(bad, (1, 1))
    os.utime(file, (1, 1))
    copy = folder / "__pycache__" / f"{name}.{sys.implementation.cache_tag}.pyc"
    py_compile.compile(str(bad), cfile=str(copy), doraise=True)
    load(kind, [AgreedTask.present(kind)])
    assert own_task(kind).measured
    assert not sprung.exists()


@pytest.mark.parametrize("odd", ["pipe", "folder", "compiled", "no init", "huge"])
def test_what_is_no_file_of_code_is_refused_and_not_waited_for(folder: Path, odd: str) -> None:
    name = f"odd_{uuid4().hex}"
    path = folder / f"{name}.py"
    kind = f"{name}:task"
    if odd == "pipe":
        os.mkfifo(path)
    elif odd == "folder":
        path.mkdir()
    elif odd == "compiled":
        (folder / "source.py").write_text(TASK)
        py_compile.compile(str(folder / "source.py"), cfile=str(path.with_suffix(".pyc")))
    elif odd == "no init":
        (folder / name).mkdir()
        (folder / name / "inner.py").write_text(TASK)
        kind = f"{name}.inner:task"
    else:
        with path.open("wb") as file:
            file.truncate(1 << 25)
    with pytest.raises(UsageError):
        AgreedTask.present(kind)


def test_a_module_that_is_there_already_is_not_taken_for_the_compared_one(folder: Path) -> None:
    kind = module(folder)
    __import__(kind.partition(":")[0])
    with pytest.raises(PolicyViolation, match="with code that was not compared"):
        load(kind, [AgreedTask.present(kind)])


def test_code_that_fails_says_so_and_is_not_half_there(folder: Path) -> None:
    kind = module(folder, "1 / 0\n")
    for _ in range(2):
        with pytest.raises(DataError, match="ZeroDivisionError"):
            load(kind, [AgreedTask.present(kind)])


class TestPolicy:
    def test_a_task_of_a_run_needs_a_line_of_the_owner(self, folder: Path) -> None:
        text, sprung = trap(folder)
        kind = module(folder, text + TASK)
        asked = f"task.kind={kind}"
        expected = f"task.kind = {kind} was requested, the policy allows those built in"
        assert expected in refusal(owners(), *run(asked))
        for check in (owners().check_offer, owners().check_evaluation, owners().admit_task):
            with pytest.raises(PolicyViolation, match="the policy allows those built in"):
                check(config(asked))
        assert not sprung.exists()

    def test_the_line_lets_it_pass_and_a_change_ends_that(self, folder: Path) -> None:
        kind = module(folder)
        line = f'{MINIMAL}[training]\ntasks = ["{AgreedTask.present(kind)}"]\n'
        line += "[release]\nrecord_counts = true\n"
        asked = run(f"task.kind={kind}")
        policy(line, folder).check(*asked)
        (folder / f"{kind.partition(':')[0]}.py").write_text(TASK + "\n")
        assert "has changed since the owner agreed" in refusal(policy(line, folder), *asked)

    @pytest.mark.parametrize(
        "line",
        ["*", "mytask:task", "mytask:task *", "mytask:* sha256:" + "0" * 64, "mytask sha256:00"],
    )
    def test_there_is_no_word_for_any_task(self, tmp_path: Path, line: str) -> None:
        with pytest.raises(ConfigError, match="must be MODULE:OBJECT sha256:HEX"):
            policy(f'{MINIMAL}[training]\ntasks = ["{line}"]\n', tmp_path)

    def test_simulated_clients_need_no_line(self) -> None:
        asked = run("task.kind=mytask:task", "privacy.noise=local")
        simulated = Policy.simulation(asked[1])
        simulated.check(*asked)
        simulated.admit_task(asked[0])
