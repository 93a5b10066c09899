"""Keeping the terminal free of what data libraries write to it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

from calyx.shared.host.optional_packages import require


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Run `datasets` and `flwr_datasets` without progress bars, warnings or log lines.

    They are imported here, because the first import may log too. All settings are put back, also
    after an error. Warnings, logging and standard error belong to the whole process, so this is
    meant for short work in a single thread.

    Raises:
        UsageError: they are not installed.
    """
    require("flwr_datasets", "simulation", "dividing records among clients, or reading the hub,")
    logged = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            with _without_progress_bars():
                yield
        finally:
            logging.disable(logged)


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    import datasets
    import flwr_datasets  # noqa: F401 - so that its loggers see the real standard error
    from tqdm import tqdm  # type: ignore[import-untyped]

    shown = not datasets.are_progress_bars_disabled()
    # A bar would start a thread that watches it and outlives it.
    interval = tqdm.monitor_interval
    tqdm.monitor_interval = 0
    datasets.disable_progress_bars()
    try:
        # One partitioner shows a bar that no setting turns off.
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        tqdm.monitor_interval = interval
        if shown:
            datasets.enable_progress_bars()
