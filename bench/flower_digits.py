"""Flower's strategies, by its own servers and clients, on splits of this project's.

    aileron bench strategies --sizes free --rules fedavg --export splits
    python flower_digits.py splits --rounds 30 --epochs 5,1
    python flower_digits.py splits --epochs 5 --rules fedavg,trimmed_mean --hostile 2 --in-process

A directory of `splits` is one seed: `participant-01.csv` and so on, and `test.csv`; features first,
label last. Clients do softmax regression from zero weights in NumPy, in batches, their rows in a new
order for each epoch. The first `--hostile` send five times their update, turned around. One line of
JSON for each split, rule and number of epochs.

Rounds run in Flower's simulation (`flwr[simulation]`, which starts Ray); with `--in-process` the
strategy's messages go straight to the client app, which gives the same models.
"""

import argparse
import json
import logging
import os
import pathlib

# Before anything of theirs is imported: nothing is said to anybody outside, and a busy machine may
# take its time to start.
os.environ.update(
    FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0", RAY_raylet_start_wait_time_s="300"
)

import flwr
import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp, strategy
from flwr.supercore.task_identity import TaskIdentity

CLASSES = 10
FLIPPED = -5.0


def rows(path, scale):
    """Features and labels of a CSV file."""
    table = np.loadtxt(path, delimiter=",", ndmin=2)
    return table[:, :-1] / scale, table[:, -1].astype(int)


def zero(features):
    return np.zeros((features, CLASSES)), np.zeros(CLASSES)


def trained(model, own, epochs, given, dice):
    """Minibatch descent of the mean cross entropy."""
    (weights, bias), (x, y) = (it.copy() for it in model), own
    targets = np.eye(CLASSES)[y]
    for _ in range(epochs):
        order = dice.permutation(len(y))
        for start in range(0, len(y), given.batch_size):
            batch = order[start : start + given.batch_size]
            logits = x[batch] @ weights + bias
            odds = np.exp(logits - logits.max(axis=1, keepdims=True))
            delta = (odds / odds.sum(axis=1, keepdims=True) - targets[batch]) / len(batch)
            weights -= given.lr * (x[batch].T @ delta)
            bias -= given.lr * delta.sum(axis=0)
    return weights, bias


def accuracy(model, x, y):
    weights, bias = model
    return float(((x @ weights + bias).argmax(axis=1) == y).mean())


def client_app(split, given, epochs):
    app = ClientApp()

    @app.train()
    def train(message, context):
        index = int(context.node_config["partition-id"]) + 1
        own = rows(split / f"participant-{index:02}.csv", given.scale)
        base = [message.content["arrays"][name].numpy() for name in ("w", "b")]
        dice = np.random.default_rng([index, message.content["config"]["server-round"]])
        update = trained(base, own, epochs, given, dice)
        if index <= given.hostile:
            update = [old + FLIPPED * (new - old) for old, new in zip(base, update)]
        answer = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(update[0]), "b": Array(update[1])}),
                "metrics": MetricRecord({"num-examples": len(own[1])}),
            }
        )
        return Message(content=answer, reply_to=message)

    return app


def rule(name, participants, hostile):
    """A strategy of Flower's, told how many are hostile, as far as it can bear them."""
    every = {
        "fraction_train": 1.0,
        "fraction_evaluate": 0.0,
        "min_train_nodes": participants,
        "min_available_nodes": participants,
        "min_evaluate_nodes": 0,
    }
    if name == "fedavg":
        return strategy.FedAvg(**every)
    if name == "fedmedian":
        return strategy.FedMedian(**every)
    if name == "trimmed_mean":
        return strategy.FedTrimmedAvg(beta=hostile / participants, **every)
    if name == "krum":
        return strategy.Krum(num_malicious_nodes=hostile, **every)
    if name == "multikrum":
        kept = participants - hostile - 2
        return strategy.MultiKrum(num_malicious_nodes=hostile, num_nodes_to_select=kept, **every)
    if name == "bulyan":
        return strategy.Bulyan(num_malicious_nodes=min(hostile, (participants - 3) // 4), **every)
    raise SystemExit(f"no rule is {name!r}")


class Here(Grid):
    """Nodes of this process."""

    def __init__(self, app, nodes):
        self.app = app
        self.contexts = {
            node: Context(1, node, {"partition-id": node - 1}, RecordDict(), {})
            for node in range(1, nodes + 1)
        }
        # Messages are made by somebody in a run: here, by nobody in particular.
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1

    def get_node_ids(self):
        return list(self.contexts)

    def send_and_receive(self, messages, *, timeout=None):
        return [self.app(it, self.contexts[it.metadata.dst_node_id]) for it in messages]

    def unused(self, *_, **__):
        raise NotImplementedError

    set_run = run = create_message = push_messages = pull_messages = unused


def federated(split, name, given, epochs):
    """The last model of a strategy of Flower's; every client has answered in every round."""
    participants = len(list(split.glob("participant-*.csv")))
    features = rows(split / "test.csv", given.scale)[0].shape[1]
    found = {"answers": []}

    def serve(grid):
        weights, bias = zero(features)
        first = ArrayRecord({"w": Array(weights), "b": Array(bias)})
        # As in our table, rules are told of as many as are hostile then, hostile or not.
        chosen = rule(name, participants, 2)
        plain = chosen.aggregate_train

        def counted(server_round, replies):
            replies = list(replies)
            found["answers"].append(sum(not it.has_error() for it in replies))
            return plain(server_round, replies)

        chosen.aggregate_train = counted
        result = chosen.start(grid=grid, initial_arrays=first, num_rounds=given.rounds)
        found["model"] = [result.arrays[it].numpy() for it in ("w", "b")]

    clients = client_app(split, given, epochs)
    if given.in_process:
        serve(Here(clients, participants))
    else:
        from flwr.simulation import run_simulation

        app = ServerApp()

        @app.main()
        def main(grid, context):
            serve(grid)

        run_simulation(
            server_app=app,
            client_app=clients,
            num_supernodes=participants,
            backend_config={
                "init_args": {"num_cpus": 2, "include_dashboard": False},
                "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            },
        )
    assert found["answers"] == [participants] * given.rounds, found["answers"]
    return found["model"]


def without_a_server(split, given, epochs):
    """What comes of as many passes over all rows in one place, and over each client's own."""
    test = rows(split / "test.csv", given.scale)
    parts = [rows(it, given.scale) for it in sorted(split.glob("participant-*.csv"))]

    def descended(own):
        passes, dice = given.rounds * epochs, np.random.default_rng(0)
        return accuracy(trained(zero(test[0].shape[1]), own, passes, given, dice), *test)

    alone = [descended(own) for own in parts]
    return {
        "all_in_one_place": descended([np.concatenate(it) for it in zip(*parts)]),
        "alone_mean": float(np.mean(alone)),
        "alone_min": min(alone),
        "alone_max": max(alone),
        "rows": [len(own[1]) for own in parts],
    }


def main():
    raw = argparse.RawDescriptionHelpFormatter
    words = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    words.add_argument("splits", type=pathlib.Path)
    words.add_argument("--rules", default="fedavg")
    words.add_argument("--hostile", type=int, default=0)
    words.add_argument("--rounds", type=int, default=30)
    words.add_argument("--epochs", default="5,1", help="epochs of a round, separated by commas")
    words.add_argument("--lr", type=float, default=0.1)
    words.add_argument("--batch-size", type=int, default=16)
    words.add_argument("--scale", type=float, default=16.0)
    words.add_argument("--in-process", action="store_true")
    given = words.parse_args()
    splits = sorted(it for it in given.splits.resolve().iterdir() if (it / "test.csv").exists())
    assert splits, f"{given.splits} holds no split"
    logging.getLogger("flwr").setLevel(logging.ERROR)

    def say(split, epochs, **figures):
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
        line = {"split": split.name, "epochs": epochs, "hostile": given.hostile, **rounded}
        print(json.dumps({**line, "version": flwr.__version__}), flush=True)

    for epochs in map(int, given.epochs.split(",")):
        for split in splits:
            if given.hostile == 0:
                say(split, epochs, system="no server", **without_a_server(split, given, epochs))
            test = rows(split / "test.csv", given.scale)
            for name in given.rules.split(","):
                reached = accuracy(federated(split, name, given, epochs), *test)
                say(split, epochs, system="flower", rule=name, accuracy=reached)


if __name__ == "__main__":
    main()
