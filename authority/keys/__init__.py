"""The secrets of the authority: its own key, and the key pairs of runs."""
