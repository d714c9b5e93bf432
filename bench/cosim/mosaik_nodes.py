"""Nodes in lockstep by mosaik: `mosaik_nodes.py inprocess|processes ring|star NODES STEPS` prints the seconds.

Each node is a simulator of its own with one entity; in processes it is reached over TCP, mosaik's own way.
"""

import os
import sys
import time

import mosaik
import mosaik_api_v3

META = {
    "api_version": "3.0",
    "type": "time-based",
    "models": {"Node": {"public": True, "params": [], "attrs": ["sent", "heard"]}},
}


class Node(mosaik_api_v3.Simulator):
    def __init__(self):
        super().__init__(META)
        self.heard = 0

    def init(self, sid, time_resolution=1.0):
        return self.meta

    def create(self, num, model):
        return [{"eid": "node", "type": model}]

    def step(self, time, inputs, max_advance):
        self.heard += len(inputs.get("node", {}).get("heard", {}))
        self.time = time
        return time + 1

    def get_data(self, outputs):
        return {eid: {"sent": {"n": self.time}} for eid in outputs}


def run(where, shape, nodes, steps):
    command = {"cmd": f"{sys.executable} {os.path.abspath(__file__)} node %(addr)s"}
    how = {"python": "__main__:Node"} if where == "inprocess" else command
    world = mosaik.World({"Node": how}, skip_greetings=True)
    made = [world.start("Node").Node() for _ in range(nodes)]
    for index, entity in enumerate(made):
        others = made[1:] if index == 0 else [made[0]]
        for other in [made[(index + 1) % nodes]] if shape == "ring" else others:
            world.connect(entity, other, ("sent", "heard"), time_shifted=True, initial_data={"sent": {"n": 0}})
    begin = time.perf_counter()
    world.run(until=steps, print_progress=False)
    return time.perf_counter() - begin


if __name__ == "__main__":
    if sys.argv[1] == "node":
        sys.argv = [sys.argv[0], *sys.argv[2:]]
        mosaik_api_v3.start_simulation(Node())
    else:
        print(run(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])), flush=True)
