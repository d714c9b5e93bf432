"""What a proplet of `container` fidelity has compute its tasks: a linear model on rows of its own.

It speaks the co-simulation protocol in JSON lines over its pipes. A task comes as the event `task_start`, with the
base model and the task's environment; its answer is the event `task_done`, a while later by the program's own clock.
"""
import json
import random
import sys

TRUTH, BIAS, ROWS, RATE, STEPS, ROW_US = (0.5, -1.0, 2.0), 0.25, 40, 0.1, 20, 500


def rows(proplet):
    dice = random.Random(proplet)
    for _ in range(ROWS):
        x = [dice.uniform(-1, 1) for _ in TRUTH]
        yield x, sum(w * v for w, v in zip(TRUTH, x)) + BIAS + dice.gauss(0, 0.01)


def train(model, data):
    w, b = list(model["w"]), model["b"]
    for _ in range(STEPS):
        for x, y in data:
            error = sum(a * v for a, v in zip(w, x)) + b - y
            w = [a - RATE * error * v for a, v in zip(w, x)]
            b -= RATE * error
    loss = sum((sum(a * v for a, v in zip(w, x)) + b - y) ** 2 for x, y in data) / len(data)
    return w, b, loss


def update(task):
    env = task["env"]
    data = list(rows(env["PROPLET_ID"]))
    w, b, loss = train(task["model"], data)
    return {
        "round_id": env["ROUND_ID"],
        "proplet_id": env["PROPLET_ID"],
        "base_model_uri": env["MODEL_URI"],
        "num_samples": len(data),
        "metrics": {"loss": loss},
        "update": {"w": w, "b": b},
    }


def main():
    node, due = "", []
    for line in sys.stdin:
        order = json.loads(line)
        answer = {"type": "READY", "time_us": 0}
        if order["type"] == "SHUTDOWN":
            return
        if order["type"] == "INIT":
            node = order["node"]
        if order["type"] == "ADVANCE":
            for event in order["events"]:
                stdout = json.dumps(update(event["payload"]))
                time_us = event["time_us"] + ROWS * STEPS * ROW_US
                done = {"type": "task_done", "src": node, "dst": event["src"], "time_us": time_us}
                due.append(dict(done, payload={"stdout": stdout}))
            now = [event for event in due if event["time_us"] <= order["time_us"]]
            due = [event for event in due if event["time_us"] > order["time_us"]]
            next_us = min([event["time_us"] for event in due], default=2**63)
            answer = {"type": "DONE", "time_us": order["time_us"], "events": now, "next_us": next_us}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
