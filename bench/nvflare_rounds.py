"""Rounds of a real NVFlare deployment (POC: a server and clients as processes) that trains nothing.

    python nvflare_rounds.py --clients 5 --rounds 10 --params 1000

A round's time is taken from the server's own log, from one "Round N started." to the next.
"""

import argparse
import datetime
import os
import pathlib
import re
import shutil
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
DIR = pathlib.Path(tempfile.mkdtemp(prefix="nvflare-rounds-"))
os.environ["NVFLARE_POC_WORKSPACE"] = str(DIR / "poc")
os.environ["HOME"] = str(DIR)
# The POC starts its parts by the name `python`.
os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"

import nvflare  # noqa: E402
from nvflare.app_common.np.recipes.fedavg import NumpyFedAvgRecipe  # noqa: E402
from nvflare.recipe.poc_env import PocEnv  # noqa: E402

from measure import say  # noqa: E402

STAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) ")
BEGUN = re.compile(r"^\s*Round (\d+) started\.")


def starts():
    """When each round began, by the server's logs: the time stands some lines above the words."""
    found = {}
    for log in (DIR / "poc").rglob("log.txt"):
        stamp = None
        for line in log.read_text(errors="replace").splitlines():
            stamp = STAMP.search(line) or stamp
            begun = BEGUN.search(line)
            if begun and stamp:
                at = datetime.datetime.strptime(stamp[1], "%Y-%m-%d %H:%M:%S,%f")
                found[int(begun[1])] = at
    return [found[number] for number in sorted(found)]


def watch_memory(peaks, ended):
    """The most resident memory of each process of the POC, by what its command line says it is."""
    while not ended.wait(1):
        for status in pathlib.Path("/proc").glob("[0-9]*/status"):
            try:
                words = (status.parent / "cmdline").read_bytes().decode(errors="replace").split("\0")
                place = re.search(r"/prod_00/(site-\d+|server)", " ".join(words))
                rss = re.search(r"VmRSS:\s+(\d+)", status.read_text())
            except OSError:
                continue
            if str(DIR) in " ".join(words) and place and rss and "-m" in words:
                name = f"{place[1]} {words[words.index('-m') + 1].split('.')[-1]}"
                peaks[name] = max(peaks.get(name, 0), int(rss[1]))


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--clients", type=int, default=5)
    words.add_argument("--rounds", type=int, default=10)
    words.add_argument("--params", type=int, default=1000)
    given = words.parse_args()
    recipe = NumpyFedAvgRecipe(
        name="nothing",
        model=[0.0] * given.params,
        min_clients=given.clients,
        num_rounds=given.rounds,
        train_script=str(HERE / "nvflare_client.py"),
    )
    peaks, ended = {}, threading.Event()
    watch = threading.Thread(target=watch_memory, args=(peaks, ended))
    env = PocEnv(num_clients=given.clients)
    try:
        watch.start()
        run = recipe.execute(env)
        run.get_result(clean_up=False)
        began = starts()
        if len(began) < 3:
            sys.exit(f"only {len(began)} rounds began; logs are in {DIR}")
        taken = [(b - a).total_seconds() * 1e3 for a, b in zip(began, began[1:])]
        say(
            "nvflare", "round", sorted(taken[1:]), first_ms=taken[0], clients=given.clients,
            parameters=given.params, memory_kb=peaks, version=nvflare.__version__,
        )
    finally:
        ended.set()
        env.stop(clean_up=True)
        shutil.rmtree(DIR, ignore_errors=True)


if __name__ == "__main__":
    main()
