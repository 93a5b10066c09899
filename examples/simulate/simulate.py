"""A federation of ten clients on this machine, with differential privacy under sealed sums."""

from calyx import run

result = run("digits-cnn", rounds=15, settings={"privacy.epsilon": 8})

print(f"accuracy {result.accuracy:.1%} after {result.rounds} rounds")
# Unrounded: a guarantee must not be rounded down.
print(f"epsilon {result.epsilon_max} at delta {result.delta}, by the clients' ledgers")
print(f"run folder {result.run_dir}")
