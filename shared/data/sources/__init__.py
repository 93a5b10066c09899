"""Where records come from: one module a source, each reading a plain folder or file.

Only ``hub`` can open a network connection. What a file promises is held against what is there
before memory is taken for it, nothing is unpickled, and nothing is unpacked to disk. Values are
scaled by constants that do not depend on the records; the words in ``done`` say how.
"""
