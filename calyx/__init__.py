"""Privacy-preserving federated learning that people can really run.

>>> from calyx import run
>>> result = run("digits-cnn", settings={"privacy.epsilon": 3})

The folders of the parties lie at the top of the source tree and are imported from here:
`calyx.server`, `calyx.client`, `calyx.shared` and so on. Nothing heavy is imported before it is
used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["CalyxError", "RunResult", "Task", "__version__", "run"]

if TYPE_CHECKING:
    from calyx.shared.errors import CalyxError
    from calyx.shared.tasks.task import Task
    from calyx.simulations.run import run
    from calyx.simulations.run_result import RunResult

    __version__: str
else:
    # Out of sight of type checkers, which would take it to mean that any name is here.
    def __getattr__(name: str) -> object:
        if name == "__version__":
            from calyx.shared.protocol.identity import software_version

            return software_version()
        if name == "CalyxError":
            from calyx.shared.errors import CalyxError

            return CalyxError
        if name == "RunResult":
            from calyx.simulations.run_result import RunResult

            return RunResult
        if name == "Task":
            from calyx.shared.tasks.task import Task

            return Task
        if name == "run":
            from calyx.simulations.run import run

            return run
        raise AttributeError(f"module 'calyx' has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(__all__)
