"""Trains the model of model.py, with differential privacy for each record."""

from calyx import run

result = run(
    "digits-cnn",
    rounds=15,
    settings={"model.name": "model:build", "privacy.epsilon": 8},
)
print(f"accuracy {result.accuracy:.1%}")
print(f"epsilon {result.epsilon_max} at delta {result.delta}")
print(f"run folder {result.run_dir}")
