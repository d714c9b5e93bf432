"""The workload {{name}}: one training step on this device's rows.

Least squares by gradient descent, y = w . x + b. It reads models of JSON.
"""

import json
import math
import os
import pathlib
import sys

from wit_world import exports


class Run(exports.Run):
    """What a proplet calls."""

    def run(self):
        try:
            print(json.dumps(step(), allow_nan=False))
        except Exception as why:
            print(f"training failed: {why}", file=sys.stderr)
            sys.exit(1)


def step():
    settings = json.loads(os.environ.get("HYPERPARAMS", "{}"))
    lr, epochs = settings.get("lr", 0.1), settings.get("epochs", 1)
    model = json.loads(pathlib.Path(os.environ["MODEL_PATH"]).read_text())
    w, b, loss = list(model["w"]), model["b"], 0.0
    rows = read_rows(pathlib.Path(os.environ["DATA_DIR"]), len(w) + 1)
    for _ in range(epochs):
        loss = 0.0
        for *x, label in rows:
            error = sum(wi * xi for wi, xi in zip(w, x)) + b - label
            w = [wi - lr * error * xi for wi, xi in zip(w, x)]
            b -= lr * error
            loss += 0.5 * error * error / len(rows)
    if not math.isfinite(loss):
        raise ValueError(f"training diverged; lower lr (now {lr})")
    return {
        "round_id": os.environ["ROUND_ID"],
        "base_model_uri": os.environ["MODEL_URI"],
        "num_samples": len(rows),
        "metrics": {"loss": loss},
        "update": {"w": w, "b": b},
    }


def read_rows(directory, width):
    rows = []
    for path in sorted(directory.glob("*.csv")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip():
                continue
            row = [float(field) for field in line.split(",")]
            if len(row) != width:
                raise ValueError(f"{path.name}, line {number}: {len(row)} fields, not {width}")
            rows.append(row)
    if not rows:
        raise ValueError(f"no rows to train on in {directory}")
    return rows
