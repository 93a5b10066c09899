"""Which clients are asked in a round, what they are told, and what comes of it."""
