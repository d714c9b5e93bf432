"""Golden values of every strategy, computed with NumPy and nothing of the project's own.

python make.py > golden.json    (NumPy 2; the seed is fixed, so the file does not change)
"""

import itertools
import json
import math

import numpy as np

rng = np.random.default_rng(20260101)
N, D = 11, 23
base = rng.normal(size=D)
updates = base + rng.normal(scale=0.3, size=(N, D))
updates[3] = base - 5 * (updates[3] - base)
updates[8] = base + 40.0
samples = rng.integers(20, 900, size=N)
losses = rng.uniform(0.1, 2.5, size=N)
steps = rng.integers(1, 30, size=N)
staleness = rng.integers(0, 6, size=N)
bases = base + rng.normal(scale=0.05, size=(N, D))
controls = rng.normal(scale=0.1, size=(N, D))

p = samples / samples.sum()
delta = p @ (updates - base)
cases = []


def case(strategy, settings, rounds, state=(), **also):
    """`rounds`: the weights after each of several rounds with the same updates and a moving base."""
    cases.append(
        {
            "strategy": strategy,
            "settings": settings,
            "rounds": [list(map(float, w)) for w in rounds],
            "state": [list(map(float, v)) for v in state],
            **also,
        }
    )


def stateful(step, state, rounds=3):
    x, made = base.copy(), []
    for _ in range(rounds):
        x, state = step(x, p @ (updates - x), state)
        made.append(x)
    return made, state


case("fedavg", {}, [np.average(updates, axis=0, weights=samples)])
case("fedprox", {"mu": 0.1}, [np.average(updates, axis=0, weights=samples)])


def momentum(x, d, state):
    v = 0.7 * state[0] + d
    return x + 0.5 * v, [v]


made, state = stateful(momentum, [np.zeros(D)])
case("fedavgm", {"server_lr": 0.5, "momentum": 0.7}, made, state)


def adaptive(second, beta1):
    def step(x, d, state):
        m, v = state
        m = beta1 * m + (1 - beta1) * d
        v = second(v, d * d)
        return x + 0.2 * m / (np.sqrt(v) + 0.01), [m, v]

    return step


start = [np.zeros(D), np.full(D, 0.01**2)]
made, state = stateful(adaptive(lambda v, s: v + s, 0.8), start)
case("fedadagrad", {"server_lr": 0.2, "beta1": 0.8, "tau": 0.01}, made, state)
made, state = stateful(adaptive(lambda v, s: 0.95 * v + 0.05 * s, 0.8), start)
case("fedadam", {"server_lr": 0.2, "beta1": 0.8, "beta2": 0.95, "tau": 0.01}, made, state)
made, state = stateful(adaptive(lambda v, s: v - 0.05 * s * np.sign(v - s), 0.8), start)
case("fedyogi", {"server_lr": 0.2, "beta1": 0.8, "beta2": 0.95, "tau": 0.01}, made, state)

case("fedmedian", {}, [np.median(updates, axis=0)])


def trimmed(share):
    cut = math.floor(share * N)
    return np.sort(updates, axis=0)[cut : N - cut].mean(axis=0)


for share in (0.1, 0.3, 0.0):
    case("trimmed_mean", {"trim_share": share}, [trimmed(share)])


def krum_scores(rows, f):
    n = len(rows)
    near = max(1, n - f - 2)
    scores = []
    for i in range(n):
        others = sorted(np.sum((rows[i] - rows[j]) ** 2) for j in range(n) if j != i)
        scores.append(sum(others[:near]))
    return np.array(scores)


f = min(math.floor(0.2 * N), (N - 3) // 2)
scores = krum_scores(updates, f)
case("krum", {"byzantine_share": 0.2}, [updates[np.argmin(scores)]])
keep = N - f - 2
case("multikrum", {"byzantine_share": 0.2}, [updates[np.argsort(scores)[:keep]].mean(axis=0)])
case("multikrum", {"byzantine_share": 0.2, "keep": 3}, [updates[np.argsort(scores)[:3]].mean(axis=0)])

f = min(math.floor(0.2 * N), (N - 3) // 4)
left, chosen = list(range(N)), []
for _ in range(N - 2 * f):
    best = left[int(np.argmin(krum_scores(updates[left], f)))]
    left.remove(best)
    chosen.append(best)
rows = updates[chosen]
keep = len(chosen) - 2 * f
middle = np.median(rows, axis=0)
nearest = np.argsort(np.abs(rows - middle), axis=0, kind="stable")[:keep]
case("bulyan", {"byzantine_share": 0.2}, [np.take_along_axis(rows, nearest, axis=0).mean(axis=0)])

v = np.median(updates, axis=0)
for _ in range(6):
    b = samples / np.maximum(1e-3, np.linalg.norm(updates - v, axis=1))
    v = b @ updates / b.sum()
case("geometric_median", {"iterations": 6, "smoothing": 1e-3}, [v])

q, lr = 0.6, 0.05
loss = losses + 1e-10
grads = (base - updates) / lr
deltas = (loss**q)[:, None] * grads
h = q * loss ** (q - 1) * np.sum(grads**2, axis=1) + loss**q / lr
case("qfedavg", {"q": q, "client_lr": lr}, [base - deltas.sum(axis=0) / h.sum()])

case(
    "scaffold",
    {"server_lr": 0.8, "population": 40},
    [base + 0.8 * (updates - base).mean(axis=0)],
    [N / 40 * controls.mean(axis=0)],
)

tau_eff = np.sum(p * steps)
case(
    "fednova",
    {"server_lr": 0.9},
    [base + 0.9 * tau_eff * np.sum((p / steps)[:, None] * (updates - base), axis=0)],
)

s = (1.0 + staleness) ** -0.5
case(
    "fedbuff",
    {"server_lr": 1.1},
    [base + 1.1 * np.sum((p * s)[:, None] * (updates - bases), axis=0)],
    with_bases=True,
)

norms = np.linalg.norm(updates - base, axis=1)
bound = float(np.median(norms))
clipped = base + (updates - base) * np.minimum(1, bound / norms)[:, None]
case("fedavg", {}, [np.average(clipped, axis=0, weights=samples)], norm_clip=bound)
kept = norms <= bound
case("fedavg", {}, [np.average(updates[kept], axis=0, weights=samples[kept])], norm_reject=bound)

share = 0.12
counts = samples.astype(float).copy()
for limit in sorted(itertools.chain(range(1, 900))):
    capped = np.minimum(samples, limit)
    if capped.max() > share * capped.sum():
        break
    counts = capped
case("fedavg", {}, [np.average(updates, axis=0, weights=counts)], share_max=share)

print(
    json.dumps(
        {
            "base": base.tolist(),
            "updates": updates.tolist(),
            "samples": samples.tolist(),
            "losses": losses.tolist(),
            "steps": steps.tolist(),
            "staleness": staleness.tolist(),
            "bases": bases.tolist(),
            "controls": controls.tolist(),
            "cases": cases,
        },
        indent=1,
    )
)
