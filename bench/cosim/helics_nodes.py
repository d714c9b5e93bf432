"""Nodes in lockstep by HELICS: `helics_nodes.py inprocess|zmq ring|star NODES STEPS [PERIOD_US]` prints the seconds.

In one process all federates share a core and are driven by the asynchronous calls of the C API; with ZeroMQ each has a
process of its own.
"""

import multiprocessing
import sys
import time

import helics as h


def targets(shape, index, nodes):
    """Whom a node sends to in each step."""
    if shape == "ring":
        return [(index + 1) % nodes]
    return list(range(1, nodes)) if index == 0 else [0]


def federate(core, index, period_s, extra):
    info = h.helicsCreateFederateInfo()
    h.helicsFederateInfoSetCoreTypeFromString(info, core)
    h.helicsFederateInfoSetCoreInitString(info, extra)
    h.helicsFederateInfoSetTimeProperty(info, h.helics_property_time_period, period_s)
    made = h.helicsCreateMessageFederate(f"node-{index}", info)
    return made, h.helicsFederateRegisterGlobalEndpoint(made, f"end-{index}", "")


def send(end, shape, index, nodes):
    for target in targets(shape, index, nodes):
        h.helicsEndpointSendBytesTo(end, b'{"n":1000}', f"end-{target}")


def take(end):
    while h.helicsEndpointHasMessage(end):
        h.helicsEndpointGetMessage(end)


def inprocess(shape, nodes, steps, period_s):
    broker = h.helicsCreateBroker("inproc", "", f"-f {nodes}")
    address = h.helicsBrokerGetAddress(broker)
    made = [federate("inproc", index, period_s, f"--broker={address}") for index in range(nodes)]
    for fed, _ in made:
        h.helicsFederateEnterExecutingModeAsync(fed)
    for fed, _ in made:
        h.helicsFederateEnterExecutingModeComplete(fed)
    begin = time.perf_counter()
    for step in range(1, steps + 1):
        for index, (fed, end) in enumerate(made):
            send(end, shape, index, nodes)
            h.helicsFederateRequestTimeAsync(fed, step * period_s)
        for fed, end in made:
            h.helicsFederateRequestTimeComplete(fed)
            take(end)
    took = time.perf_counter() - begin
    for fed, _ in made:
        h.helicsFederateDisconnect(fed)
    return took


def node(index, shape, nodes, steps, period_s, port, told):
    fed, end = federate("zmq", index, period_s, f"--broker_address=tcp://127.0.0.1:{port}")
    h.helicsFederateEnterExecutingMode(fed)
    begin = time.perf_counter()
    for step in range(1, steps + 1):
        send(end, shape, index, nodes)
        h.helicsFederateRequestTime(fed, step * period_s)
        take(end)
    told.put(time.perf_counter() - begin)
    h.helicsFederateDisconnect(fed)


def processes(shape, nodes, steps, period_s):
    port = 23404
    broker = h.helicsCreateBroker("zmq", "", f"-f {nodes} --localport={port}")
    told = multiprocessing.Queue()
    each = [
        multiprocessing.Process(target=node, args=(index, shape, nodes, steps, period_s, port, told))
        for index in range(nodes)
    ]
    for process in each:
        process.start()
    took = max(told.get(timeout=300) for _ in each)
    for process in each:
        process.join()
    h.helicsBrokerDisconnect(broker)
    return took


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    where, shape, nodes, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    period_s = (int(sys.argv[5]) if len(sys.argv) > 5 else 1000) / 1e6
    run = {"inprocess": inprocess, "zmq": processes}[where]
    print(run(shape, nodes, steps, period_s), flush=True)
    h.helicsCloseLibrary()
