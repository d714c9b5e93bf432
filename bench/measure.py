"""Shared by the baselines: random updates, repeated timing, and one JSON line a figure."""

import json
import platform
import sys
import time

import numpy as np


def updates(count, width, seed=7):
    """`count` vectors of `width` float32, and a number of samples for each."""
    dice = np.random.default_rng(seed)
    vectors = [dice.standard_normal(width, dtype=np.float32) for _ in range(count)]
    samples = [int(n) for n in dice.integers(1, 1000, count)]
    return vectors, samples


def timed(work, runs):
    """Milliseconds of each run after one that is thrown away, and what the last run returned."""
    taken = []
    for run in range(runs + 1):
        start = time.perf_counter()
        result = work()
        if run > 0:
            taken.append((time.perf_counter() - start) * 1e3)
    return sorted(taken), result


def say(system, what, taken, **more):
    """One JSON line; all times in milliseconds."""
    line = {
        "system": system,
        "what": what,
        "median_ms": round(taken[len(taken) // 2], 3),
        "min_ms": round(taken[0], 3),
        "runs": len(taken),
        "python": platform.python_version(),
        **more,
    }
    print(json.dumps(line))
    sys.stdout.flush()


def shape(text):
    """`10x10000000` as numbers."""
    count, width = text.lower().split("x")
    return int(count), int(width)
