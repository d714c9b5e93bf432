"""NVFlare's own weighted aggregation, as its FedAvg controller calls it, of updates in memory.

    python nvflare_aggregate.py 10x10000000 100x1000000
"""

import argparse

import nvflare
from nvflare.app_common.aggregators.weighted_aggregation_helper import WeightedAggregationHelper

from measure import say, shape, timed, updates


def average(vectors, samples):
    helper = WeightedAggregationHelper()
    for index, (vector, count) in enumerate(zip(vectors, samples)):
        helper.add({"w": vector}, weight=count, contributor_name=f"site-{index}", contribution_round=1)
    return helper.get_result()


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("shapes", nargs="*", type=shape, default=[(10, 10_000_000), (100, 1_000_000)])
    words.add_argument("--runs", type=int, default=5)
    given = words.parse_args()
    for count, width in given.shapes:
        vectors, samples = updates(count, width)
        taken, _ = timed(lambda: average(vectors, samples), given.runs)
        say("nvflare", "fedavg", taken, updates=count, parameters=width, version=nvflare.__version__)


if __name__ == "__main__":
    main()
