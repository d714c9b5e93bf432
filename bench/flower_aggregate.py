"""Flower's own strategies, as its server calls them, on replies that lie in memory.

    python flower_aggregate.py 10x10000000 100x1000000

What is timed is `aggregate_train` of the strategy, from the replies to the new arrays. The rules of
its older interface (`flwr.server.strategy`) that differ are timed with --old.
"""

import argparse
import logging

import flwr
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.server.strategy import aggregate as old
from flwr.serverapp import strategy
from flwr.supercore.task_identity import TaskIdentity

from measure import say, shape, timed, updates

logging.getLogger("flwr").setLevel(logging.ERROR)
# Messages are made by somebody in a run: here, by nobody in particular.
TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def replies(vectors, samples):
    """What clients send back after training."""
    made = []
    for node, (vector, count) in enumerate(zip(vectors, samples), 1):
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(vector)}),
                "metrics": MetricRecord({"num-examples": count, "loss": 0.5}),
            }
        )
        asked = Message(RecordDict(), dst_node_id=node, message_type="train")
        made.append(Message(content, reply_to=asked))
    return made


def new_rules(count, malicious):
    quiet = {"fraction_train": 1.0, "min_train_nodes": 1, "min_available_nodes": 1}
    return {
        "fedavg": strategy.FedAvg(**quiet),
        "fedmedian": strategy.FedMedian(**quiet),
        "trimmed_mean": strategy.FedTrimmedAvg(beta=0.1, **quiet),
        "krum": strategy.Krum(num_malicious_nodes=malicious, **quiet),
        "bulyan": strategy.Bulyan(num_malicious_nodes=malicious, **quiet),
    }


def old_rules(malicious):
    return {
        "fedavg": old.aggregate,
        "fedmedian": old.aggregate_median,
        "trimmed_mean": lambda results: old.aggregate_trimmed_avg(results, 0.1),
    }


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("shapes", nargs="*", type=shape, default=[(10, 10_000_000), (100, 1_000_000)])
    words.add_argument("--rules", default="fedavg,fedmedian,trimmed_mean,krum,bulyan")
    words.add_argument("--runs", type=int, default=5)
    words.add_argument("--old", action="store_true", help="also the older interface")
    given = words.parse_args()
    for count, width in given.shapes:
        vectors, samples = updates(count, width)
        malicious = count // 10  # As many as the trimmed mean cuts off at each end.
        sizes = {"updates": count, "parameters": width, "version": flwr.__version__}
        wanted = given.rules.split(",")
        if given.old:
            results = [([vector], n) for vector, n in zip(vectors, samples)]
            for rule, work in old_rules(malicious).items():
                if rule in wanted:
                    runs = given.runs if rule == "fedavg" else min(given.runs, 2)
                    taken, _ = timed(lambda: work(results), runs)
                    say("flower, older interface", rule, taken, **sizes)
        for rule, how in new_rules(count, malicious).items():
            if rule in wanted:
                runs = given.runs if rule == "fedavg" else min(given.runs, 2)
                # Some take the arrays out of what they are given: every run gets replies of its own.
                fresh = [replies(vectors, samples) for _ in range(runs + 1)]
                taken, (arrays, _) = timed(lambda: how.aggregate_train(1, fresh.pop()), runs)
                assert arrays is not None, rule
                say("flower", rule, taken, malicious=malicious, **sizes)


if __name__ == "__main__":
    main()
