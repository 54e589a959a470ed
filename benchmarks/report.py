"""Every figure of the pages on performance, measured anew, one part after the other.

    make bench-report                                     # all parts, with nothing else running; half an hour
    python -m benchmarks.report --only main scale         # some of them
    python -m benchmarks.report --only none --write       # put what was measured into the pages

Each part leaves its figures in the directory as JSON. Tables go to stdout; with --write they also replace those of
docs/reference/performance.md and docs/how-to/size-a-cluster.md, between the comments that name the part.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import keys, soak
from benchmarks.peers import run as peers

from fraudstream.benchmark import plan, report

ROOT = Path(__file__).parents[1]
PAGES = ("docs/reference/performance.md", "docs/how-to/size-a-cluster.md")
WORKERS = (1, 2, 4)
PLANNED = (100_000, 1_000_000)
CARDS, TERMINALS = 10_000_000, 500_000

Words = tuple[str, ...]


def commands(directory: Path, peers_python: Path) -> dict[str, list[Words]]:
    """What each part runs, as words after the interpreter's `-m`."""
    kept = ("--directory", str(directory / "files"))
    whole: Words = ("fraudstream", "benchmark", "--transactions", "200000", "--rate", "2000", "--rate", "half")
    scale: Words = ("fraudstream", "benchmark", "--transactions", "300000", *kept)
    return {
        "main": [
            (*whole, "--seconds", "20", "--stages", *kept, "--json", str(directory / "main.json"),
             "--plot", str(directory / "main.svg")),
            (*scale, "--append-only", "--json", str(directory / "append-only.json")),
        ],
        "scale": [(*scale, "--transactions", "150000", "--event-rate", "100", "--workers", str(n), "--json", str(directory / f"scale-{n}.json")) for n in WORKERS],
        "memory": [("fraudstream", "benchmark", "--transactions", "2000000", *kept, "--json", str(directory / "memory.json"))],
        "keys": [("benchmarks.keys", "--json", str(directory / "keys.json"))],
        "soak": [("benchmarks.soak", "--json", str(directory / "soak.json"))],
        "peers": [("benchmarks.peers.run", "--python", str(peers_python), "--json", str(directory / "peers.json"))],
    }  # fmt: skip


def tables(directory: Path) -> dict[str, str]:
    """The tables of all parts whose figures are there."""

    def figures(name: str) -> Any:
        file = directory / f"{name}.json"
        return json.loads(file.read_text("utf-8")) if file.exists() else None

    found: dict[str, str] = {}

    def add(name: str, data: Any, tell: Callable[[Any], str]) -> None:
        if data:
            found[name] = tell(data)

    main = figures("main")
    add("main", main, report.told)
    add("append-only", figures("append-only"), _append_only)
    add("scale", [data for n in WORKERS if (data := figures(f"scale-{n}"))], _scale)
    add("memory", figures("memory"), _memory)
    add("keys", figures("keys"), keys.table)
    add("soak", figures("soak"), soak.table)
    add("peers", figures("peers"), lambda data: peers.table(data["programs"]))
    add("costs", main, lambda data: plan.costs_told(plan.costs_of(data)))
    add("clusters", main, _clusters)
    return found


def put(page: str, found: dict[str, str]) -> str:
    r"""The page with its tables replaced.

    Examples
    --------
    >>> put("a <!-- x -->old<!-- /x --> b", {"x": "new"})
    'a <!-- x -->\n\nnew\n\n<!-- /x --> b'
    """
    for name, text in found.items():
        between = re.compile(rf"<!-- {name} -->.*?<!-- /{name} -->", re.DOTALL)
        page = between.sub(lambda _, n=name, t=text: f"<!-- {n} -->\n\n{t}\n\n<!-- /{n} -->", page)
    return page


def _scale(runs: list[dict[str, Any]]) -> str:
    rows = []
    for run in runs:
        found = run["throughput"]
        cpu = found["cpu_us"]
        workers_mb = [seen["max"] for name, seen in found["rss_mb"].items() if name.startswith("worker")]
        rows.append(
            [run["options"]["workers"], found["per_s"], *(f"{cpu[of]:.1f}" for of in ("worker", "redis", "kafka")),
             f"{max(workers_mb):.0f}"]
        )  # fmt: skip
    head = ["workers", "transactions/s", "CPU µs a transaction, workers", "Redis", "broker", "MB a worker"]
    return report.table(head, rows)


def _append_only(run: dict[str, Any]) -> str:
    found = run["throughput"]
    return (
        f"With Redis' append-only log, synced every second: {found['per_s']:,} transactions/s, Redis "
        f"{found['cpu_us']['redis']:.1f} µs a transaction (its thread that writes the log included)."
    )


def _memory(run: dict[str, Any]) -> str:
    found = run["throughput"]
    highest = max(seen["max"] for name, seen in found["rss_mb"].items() if name.startswith("worker"))
    return (
        f"A worker over {found['transactions']:,} transactions from Kafka: {highest:.0f} MB at most, "
        f"{found['worker_mb_per_million']:g} MB a million over the second half of the run."
    )


def _clusters(figures: dict[str, Any]) -> str:
    return plan.clusters_told(plan.costs_of(figures), PLANNED, cards=CARDS, terminals=TERMINALS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("bench-report"))
    parser.add_argument("--peers-python", type=Path, default=Path(".venv-peers/bin/python"))
    parser.add_argument("--only", nargs="+", default=None, help="main, scale, memory, keys, soak, peers; or none")
    parser.add_argument("--write", action="store_true", help="put the tables into the pages")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    for part, runs in commands(options.directory, options.peers_python).items():
        if options.only is not None and part not in options.only:
            continue
        if part == "peers" and not options.peers_python.exists():
            sys.stderr.write(f"peers are left out: there is no {options.peers_python}; `make peers` installs them\n")
            continue
        for words in runs:
            sys.stderr.write(f"== python -m {' '.join(words)}\n")
            subprocess.run([sys.executable, "-m", *words], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    found = tables(options.directory)
    for name, text in found.items():
        print(f"## {name}\n\n{text}\n")
    if options.write:
        for page in PAGES:
            file = ROOT / page
            file.write_text(put(file.read_text("utf-8"), found), "utf-8")


if __name__ == "__main__":
    main()
