"""Aggregation as somebody writes it in NumPy, of updates that lie in memory.

    python numpy_aggregate.py 10x10000000 100x1000000
"""

import argparse

import numpy as np

from measure import say, shape, timed, updates


def streamed(vectors, weights):
    """One pass an update, O(model) memory: how an average is written when updates come one by one."""
    total = np.zeros_like(vectors[0])
    for vector, weight in zip(vectors, weights):
        total += vector * np.float32(weight)
    return total


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("shapes", nargs="*", type=shape, default=[(10, 10_000_000), (100, 1_000_000)])
    words.add_argument("--rules", default="fedavg,fedmedian,trimmed_mean")
    words.add_argument("--runs", type=int, default=5)
    given = words.parse_args()
    for count, width in given.shapes:
        vectors, samples = updates(count, width)
        stacked = np.stack(vectors)
        weights = np.array(samples, dtype=np.float32) / np.float32(sum(samples))
        cut = count // 10
        rules = {
            "fedavg": [
                ("numpy, one by one", lambda: streamed(vectors, weights)),
                ("numpy, stacked, BLAS", lambda: weights @ stacked),
            ],
            "fedmedian": [("numpy, stacked", lambda: np.median(stacked, axis=0))],
            "trimmed_mean": [
                (
                    "numpy, stacked",
                    lambda: np.partition(stacked, (cut, count - cut - 1), axis=0)[
                        cut : count - cut
                    ].mean(axis=0),
                )
            ],
        }
        for rule in given.rules.split(","):
            for how, work in rules.get(rule, []):
                runs = given.runs if rule == "fedavg" else min(given.runs, 2)
                taken, _ = timed(work, runs)
                say(how, rule, taken, updates=count, parameters=width, version=np.__version__)


if __name__ == "__main__":
    main()
