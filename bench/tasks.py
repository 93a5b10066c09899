"""What the presets of each task reach on real data, with and without differential privacy.

``python -m bench.tasks DATA_DIR [--only NAME ...] [--seeds N] [--no-dp] [--json]`` runs each preset
over seeds 0 to N-1 (5). DATA_DIR holds the folders fsdd, rt-polarity, sp-sw-har-phone and
tiny-shakespeare in their publishers' formats; the tables are those of scikit-learn. Settings were
chosen on training data.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calyx.simulations import run

# Without noise clients train on their own and are averaged: other steps, fewer rounds.
_NO_DP = ("privacy.noise=none", "federation.strategy=fedavg", "training.schedule=cosine")
# As the descriptions of the two tables in scikit-learn give them, rounded outwards.
_CANCER = (
    "mean radius=6:30,mean texture=9:40,mean perimeter=40:190,mean area=140:2600,"
    "mean smoothness=0.05:0.17,mean compactness=0:0.35,mean concavity=0:0.43,"
    "mean concave points=0:0.21,mean symmetry=0.1:0.31,mean fractal dimension=0.04:0.1,"
    "radius error=0:3,texture error=0:5,perimeter error=0:22,area error=0:550,"
    "smoothness error=0:0.032,compactness error=0:0.14,concavity error=0:0.4,"
    "concave points error=0:0.053,symmetry error=0:0.08,fractal dimension error=0:0.03,"
    "worst radius=7:37,worst texture=12:50,worst perimeter=50:252,worst area=180:4300,"
    "worst smoothness=0.07:0.23,worst compactness=0:1.1,worst concavity=0:1.26,"
    "worst concave points=0:0.3,worst symmetry=0.15:0.67,worst fractal dimension=0.05:0.21"
)
_DIABETES = (
    "age=18:80,sex=1:2,bmi=16:44,bp=60:135,s1=95:305,s2=40:245,s3=20:100,s4=2:10,s5=3:6.2,"
    "s6=55:125,target=25:346"
)


@dataclass(frozen=True)
class Case:
    """A preset on one data set.

    Attributes:
        preset: its name.
        place: file or folder below DATA_DIR, or a table of scikit-learn.
        metric: by which it is judged.
        settings: beside the preset's.
        no_dp: settings of the run without noise.
    """

    preset: str
    place: str
    metric: str
    settings: tuple[str, ...] = ()
    no_dp: tuple[str, ...] = ()


CASES = {
    "cancer": Case(
        "table-mlp",
        "cancer.csv",
        "auc",
        ("data.label=target", f"data.bounds={_CANCER}"),
        ("privacy.noise=none",),
    ),
    "diabetes": Case(
        "table-mlp",
        "diabetes.csv",
        "r2",
        ("task.kind=regression", "data.label=target", f"data.bounds={_DIABETES}"),
        ("privacy.noise=none",),
    ),
    **{
        name: Case(name, place, "accuracy", (), (*_NO_DP, f"training.rounds={rounds}"))
        for name, place, rounds in (
            ("spoken-digits-cnn", "fsdd/fsdd-recordings.tar.xz", 30),
            ("spoken-digits-lstm", "fsdd/fsdd-recordings.tar.xz", 60),
            ("motion-cnn", "sp-sw-har-phone/sp-sw-har-phone.tar.xz", 40),
            ("motion-lstm", "sp-sw-har-phone/sp-sw-har-phone.tar.xz", 60),
            ("shakespeare-lstm", "tiny-shakespeare/input.txt", 60),
        )
    },
    **{
        name: Case(
            name,
            "rt-polarity",
            "accuracy",
            (),
            (
                *_NO_DP,
                "training.rounds=6",
                "training.learning_rate=0.001",
                "model.hidden=128",
                "model.embedding=0",
                "model.dropout=0.3",
                "model.token_scale=1",
                "data.vocabulary=hashed:30000",
            ),
        )
        for name in ("sentiment-lstm", "sentiment-attention")
    },
}


def tables(folder: Path) -> None:
    """Write the two tables of scikit-learn as CSV files."""
    from sklearn.datasets import load_breast_cancer, load_diabetes

    cancer = load_breast_cancer(as_frame=True)
    frame = cancer.frame.assign(target=[cancer.target_names[c] for c in cancer.target])
    frame.to_csv(folder / "cancer.csv", index=False)
    load_diabetes(as_frame=True, scaled=False).frame.to_csv(folder / "diabetes.csv", index=False)


def measure(case: Case, place: Path, settings: tuple[str, ...], seeds: int) -> dict[str, Any]:
    """The case's metric for each seed, and mean and sample standard deviation."""
    values, seconds = [], []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            found = run(
                case.preset,
                settings=(*case.settings, *settings),
                seed=seed,
                out=Path(folder) / "run",
                data_dir=place,
            )
        value = found.metrics[case.metric]
        assert value is not None
        values.append(value)
        seconds.append(found.seconds)
        print(f"{case.preset} {place.name} seed {seed}: {found.metrics}", file=sys.stderr)
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {
        "metric": case.metric,
        "values": values,
        "mean": statistics.mean(values),
        "std": spread,
        "seconds": statistics.median(seconds),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--no-dp", action="store_true", help="without differential privacy")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        tables(Path(folder))
        for name in arguments.only:
            case = CASES[name]
            is_table = case.place.endswith(".csv")
            place = (Path(folder) if is_table else arguments.data_dir) / case.place
            found[name] = measure(
                case, place, case.no_dp if arguments.no_dp else (), arguments.seeds
            )
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, row in found.items():
            spread = "" if row["std"] is None else f" ± {row['std']:.4f}"
            print(f"{name:20} {row['metric']:10} {row['mean']:.4f}{spread}")


if __name__ == "__main__":
    main()
