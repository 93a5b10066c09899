"""What is learned: a loss for each record, and the metrics it is judged by.

One object answers for a run what training, privacy, evaluation and report ask: `Task`. Four kinds
are built in; `calyx.shared.tasks.find` finds the one that a configuration names.
"""

from calyx.shared.tasks.metric import Metric
from calyx.shared.tasks.task import Task

__all__ = ["Metric", "Task"]
