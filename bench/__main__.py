"""All benchmarks, one after another, and one summary in the end: `make bench`.

    python bench [--quick] [--write] [--threads 2] [--device cuda] [--only ppo sft]

Other options than these belong to single benchmarks: `python bench/ppo.py --help`. A benchmark that
fails is named in the summary, and the exit code is 1 then. Nothing else should run on the machine.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import compare

ORDER = ("parity", "revise", "label", "ppo", "sft", "reward", "roofline")


def main() -> None:
    """Run them, each in a process of its own; print the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=ORDER, default=ORDER)
    options, rest = parser.parse_known_args()
    failed: dict[str, int] = {}
    rows: list[compare.Row] = []
    parity: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            file = Path(folder) / f"{name}.json"
            code, seconds = run(name, file, [] if name == "parity" else rest)
            print(f"{name}: {seconds:.0f} s{f', exit code {code}' if code else ''}", flush=True)
            if code:
                failed[name] = code
            if file.is_file() and name == "parity":
                parity = agreement(json.loads(file.read_bytes())["found"])
            elif file.is_file():
                found = [compare.Row(**row) for row in json.loads(file.read_bytes())]
                rows += [
                    compare.Row(f"{name}: {row.case}", row.ours, row.theirs, row.ratios)
                    for row in found
                ]
    print("\n".join(["", "Summary", *parity, compare.table(rows)]))
    for name, code in failed.items():
        print(f"{name} failed with exit code {code}; what it said stands above")
    sys.exit(1 if failed else 0)


def run(name: str, file: Path, options: list[str]) -> tuple[int, float]:
    print(f"\n# {name}", flush=True)
    start = time.perf_counter()
    script = Path(__file__).with_name(f"{name}.py")
    done = subprocess.run([sys.executable, str(script), "--json", str(file), *options])
    return done.returncode, time.perf_counter() - start


def agreement(found: dict[str, tuple[float, float]]) -> list[str]:
    """One line on what PPO has in common with TRL's, and one for each thing it has not."""
    apart = {name: difference for name, (difference, limit) in found.items() if difference > limit}
    largest = max(difference for difference, _ in found.values())
    lines = [f"PPO parity with TRL: {len(found)} quantities, largest difference {largest:.1e}"]
    return [*lines, *(f"  too far: {name}, {value:.1e}" for name, value in apart.items())]


if __name__ == "__main__":
    main()
