"""Federated averaging by Flower's own strategy; says when each round ended."""

import json
import time

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    """Tells the time at the end of each round's training."""

    def aggregate_train(self, server_round, replies):
        result = super().aggregate_train(server_round, replies)
        self.ends.append(time.perf_counter())
        return result


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    clients = int(config["clients"])
    strategy = Timed(
        fraction_train=1.0,
        fraction_evaluate=0.0,
        min_train_nodes=clients,
        min_available_nodes=clients,
        min_evaluate_nodes=0,
    )
    strategy.ends = [time.perf_counter()]
    model = ArrayRecord({"w": Array(np.zeros(int(config["params"]), dtype=np.float32))})
    strategy.start(grid=grid, initial_arrays=model, num_rounds=int(config["rounds"]))
    taken = [round((b - a) * 1e3, 1) for a, b in zip(strategy.ends, strategy.ends[1:])]
    print("ROUNDS_MS " + json.dumps(taken), flush=True)
