"""Rounds of a real Flower deployment that trains nothing: one SuperLink, real SuperNodes.

    python flower_rounds.py --clients 5 --rounds 10 --params 1000

Everything runs on this machine, each part a process of its own, and ends with this script.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import flwr

from measure import say

HERE = pathlib.Path(__file__).resolve().parent
BIN = pathlib.Path(sys.executable).parent


def free_ports(count):
    """Ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    for it in sockets:
        it.bind(("127.0.0.1", 0))
    ports = [it.getsockname()[1] for it in sockets]
    for it in sockets:
        it.close()
    return ports


def memory_kb(pid, field="VmRSS"):
    """None if it has ended."""
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(field)), None)


def main():
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--clients", type=int, default=5)
    words.add_argument("--rounds", type=int, default=10)
    words.add_argument("--params", type=int, default=1000)
    words.add_argument("--timeout-s", type=int, default=600)
    given = words.parse_args()
    dir = pathlib.Path(tempfile.mkdtemp(prefix="flower-rounds-"))
    env = dict(os.environ, FLWR_TELEMETRY_ENABLED="0", FLWR_HOME=str(dir / "home"), HOME=str(dir))
    env["PATH"] = f"{BIN}:{env['PATH']}"
    superlink, *supernodes = free_ports(1 + given.clients)
    started = {}

    def start(name, *command):
        log = open(dir / f"{name}.log", "w")
        started[name] = subprocess.Popen(
            command, stdout=log, stderr=log, env=env, cwd=dir, start_new_session=True
        )

    try:
        start(
            "superlink",
            BIN / "flower-superlink",
            "--insecure",
            "--host=127.0.0.1",
            f"--port={superlink}",
        )
        time.sleep(5)
        for index, port in enumerate(supernodes):
            start(
                f"supernode-{index}",
                BIN / "flower-supernode",
                "--insecure",
                f"--superlink=127.0.0.1:{superlink}",
                "--host=127.0.0.1",
                f"--port={port}",
            )
        app = dir / "app"
        shutil.copytree(HERE / "flower_app", app, ignore=shutil.ignore_patterns("__pycache__"))
        (dir / "home").mkdir(exist_ok=True)
        (dir / "home" / "config.toml").write_text(
            f'[superlink.here]\naddress = "127.0.0.1:{superlink}"\ninsecure = true\n'
        )
        time.sleep(10)
        config = f"rounds={given.rounds} params={given.params} clients={given.clients}"
        run = subprocess.run(
            [BIN / "flwr", "run", str(app), "here", "--stream", "--run-config", config],
            env=env, capture_output=True, text=True, timeout=given.timeout_s,
        )
        memory = {name: memory_kb(it.pid) for name, it in started.items()}
        said = run.stdout + run.stderr
        said += "".join(path.read_text() for path in dir.glob("*.log"))
        lines = [line for line in said.splitlines() if "ROUNDS_MS" in line]
        if not lines:
            sys.exit(f"no round ended; logs:\n{said[-6000:]}")
        taken = json.loads(lines[0].split("ROUNDS_MS ")[1])
        say(
            "flower", "round", sorted(taken[1:]), first_ms=taken[0], clients=given.clients,
            parameters=given.params, memory_kb=memory, version=flwr.__version__,
        )
    finally:
        for it in started.values():
            try:
                os.killpg(it.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            it.wait()
        shutil.rmtree(dir, ignore_errors=True)


if __name__ == "__main__":
    main()
