"""Ours beside HELICS and mosaik, in one run, in turns: a table in Markdown, medians of several turns.

Run it with the Python that has `helics` and `mosaik`; build ours before: `cargo build --release -p cosim --examples`.
"""

import argparse
import importlib.metadata
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
EXAMPLES = os.path.join(HERE, "..", "..", "target", "release", "examples")


def out_of(*words):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise SystemExit(f"{words}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def ours_steps(args, shape, nodes, steps):
    return float(out_of(os.path.join(args.examples, "lockstep"), nodes, steps, shape).split()[-2])


def their_steps(script, where, shape, nodes, steps):
    said = out_of(sys.executable, os.path.join(HERE, script), where, shape, nodes, steps)
    return steps / seconds(said)


def seconds(said):
    """The line that is a number; libraries say other things beside."""
    for line in reversed(said.splitlines()):
        try:
            return float(line)
        except ValueError:
            continue
    raise SystemExit(f"no seconds in {said!r}")


def ours_hour(args, where):
    said = out_of(os.path.join(args.examples, "hour"), where, 10, 3600)
    return float(said.split(" s, ")[0].split()[-1])


def helics_hour(where):
    said = out_of(sys.executable, os.path.join(HERE, "helics_nodes.py"), where, "ring", 10, 3600, 1_000_000)
    return seconds(said)


def mosaik_hour(where):
    return seconds(out_of(sys.executable, os.path.join(HERE, "mosaik_nodes.py"), where, "ring", 10, 3600))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--examples", default=EXAMPLES, help="where ours are")
    args = parser.parse_args()
    lockstep = []
    for shape, nodes in (("ring", 2), ("ring", 10), ("star", 10)):
        runs = {
            "ours, stdio": lambda: ours_steps(args, shape, nodes, 10_000),
            "HELICS, in one process": lambda: their_steps("helics_nodes.py", "inprocess", shape, nodes, 2_000),
            "HELICS, ZeroMQ": lambda: their_steps("helics_nodes.py", "zmq", shape, nodes, 2_000),
            "mosaik, in one process": lambda: their_steps("mosaik_nodes.py", "inprocess", shape, nodes, 1_000),
            "mosaik, processes": lambda: their_steps("mosaik_nodes.py", "processes", shape, nodes, 500),
        }
        lockstep.append((f"{shape} of {nodes}", in_turns(runs, args.turns)))
    print(f"HELICS {importlib.metadata.version('helics')}, mosaik {importlib.metadata.version('mosaik')}, "
          f"median of {args.turns} turns (lowest to highest)\n")
    table("steps/s", lockstep, lambda own, other: own / other)
    runs = {
        "ours, in one process": lambda: ours_hour(args, "inprocess"),
        "ours, stdio": lambda: ours_hour(args, "stdio"),
        "HELICS, in one process": lambda: helics_hour("inprocess"),
        "HELICS, ZeroMQ": lambda: helics_hour("zmq"),
        "mosaik, in one process": lambda: mosaik_hour("inprocess"),
        "mosaik, processes": lambda: mosaik_hour("processes"),
    }
    table("one hour, 10 nodes, seconds", [("ring of 10", in_turns(runs, args.turns))], lambda own, other: other / own)


def in_turns(runs, turns):
    measured = {name: [] for name in runs}
    for _ in range(turns):
        for name, run in runs.items():
            measured[name].append(run())
            print(f"  {name}: {measured[name][-1]:.3f}", file=sys.stderr)
    return measured


def table(what, columns, ratio):
    names = list(columns[0][1])
    print(f"| {what} | " + " | ".join(f"{column} | ours is" for column, _ in columns) + " |")
    print("|---" * (1 + 2 * len(columns)) + "|")
    for name in names:
        cells = [name]
        for _, measured in columns:
            values, own = measured[name], statistics.median(measured["ours, stdio"])
            middle = statistics.median(values)
            form = "{:,.0f}" if middle > 100 else "{:.2f}"
            cells.append(f"{form} ({form} to {form})".format(middle, min(values), max(values)))
            cells.append("" if name.startswith("ours") else f"{ratio(own, middle):.1f} x")
        print("| " + " | ".join(cells) + " |")
    print()


if __name__ == "__main__":
    main()
