"""Records: read from files, held out for testing, divided among clients.

>>> from calyx.shared.data import load_split, partition
>>> split = load_split(config.data, config.seed)
>>> parts = partition(split.train, config.data, config.federation.clients, config.seed)
>>> split.train.subset(parts[0])

Importing this package costs NumPy; what a source or partition needs is imported when it is used.
Only the source ``hub`` can open a network connection, and only with ``data.allow_download``.
"""

from calyx.shared.data.dataset import Dataset, Split
from calyx.shared.data.load import load_folder, load_split
from calyx.shared.data.partition import partition

__all__ = ["Dataset", "Split", "load_folder", "load_split", "partition"]
