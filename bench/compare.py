"""What every comparison here shares: its options, rounds that take turns, a table, RESULTS.md.

Each figure is a ratio within one run: the sides take turns, in another order every other round, so
that noise of the machine hits all of them. The ratio of a pair is the median over rounds, beside
the lowest and the highest.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: see engines.local.use_threads

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "RESULTS.md"
COLUMNS = ("date", "commit", "case", "ours", "theirs", "ratio", "rounds", "machine", "versions")


@dataclass(frozen=True)
class Row:
    """One line of a table. ``ratios`` holds a value a round: above 1, ours is the faster.

    ``facts`` are what else was found; they are printed, and stand in the JSON.
    """

    case: str
    ours: str
    theirs: str
    ratios: list[float]
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> str:
        """The median, and between what values it lies.

        >>> Row("", "", "", [2.0, 4.0, 3.0]).ratio
        '3 (2–4)'
        """
        low, high = min(self.ratios), max(self.ratios)
        return f"{median(self.ratios):.3g} ({low:.3g}–{high:.3g})"


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--quick", action="store_true", help="seconds: does it run? no figures")
    made.add_argument("--write", action="store_true", help="append the rows to bench/RESULTS.md")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    made.add_argument("--rounds", type=int, default=rounds, help="turns of each side")
    made.add_argument("--threads", type=int, default=0, help="0: every core")
    made.add_argument("--device", default="cpu", help="cpu or cuda")
    return made


def in_turns(sides: Mapping[str, Callable[[int], float]], rounds: int) -> dict[str, list[float]]:
    """What each side returns in each round; it is given the round's number.

    >>> found = in_turns({"a": lambda n: n, "b": lambda n: 2 * n}, 3)
    >>> found["a"], found["b"]
    ([0, 1, 2], [0, 2, 4])
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            found[name].append(sides[name](number))
    return found


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def finish(bench: str, options: argparse.Namespace, rows: Sequence[Row], trl: str = "") -> None:
    """Print the rows; write them where the options say so. Quick runs are never written."""
    where, versions_ = machine(options), versions(trl)
    print(f"\n{versions_}\n{where}")
    print(table(rows))
    for row in rows:
        for name, value in row.facts.items():
            print(f"{row.case}: {name} {value:.4g}")
    if options.quick:
        print("--quick: sizes are too small to mean anything")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    if options.write and not options.quick:
        for row in rows:
            append(RESULTS, bench, _cells(row, where, versions_))


def table(rows: Sequence[Row]) -> str:
    """Aligned text.

    >>> print(table([Row("a case", "2 rows/s", "1 rows/s", [2.0])]))
    case    ours      theirs    ratio
    a case  2 rows/s  1 rows/s  2 (2–2)
    """
    lines = [("case", "ours", "theirs", "ratio")]
    lines += [(row.case, row.ours, row.theirs, row.ratio) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(row: Row, where: str, versions_: str) -> list[str]:
    today = datetime.date.today().isoformat()
    rounds = str(len(row.ratios))
    return [today, commit(), row.case, row.ours, row.theirs, row.ratio, rounds, where, versions_]


def append(file: Path, section: str, cells: Sequence[str]) -> None:
    """Add a line to the table under ``## section``. The file and the section must be there."""
    lines = file.read_text(encoding="utf-8").splitlines()
    start = lines.index(f"## {section}")
    ends = (n for n in range(start + 1, len(lines)) if lines[n].startswith("## "))
    stop = next(ends, len(lines))
    last = max(n for n in range(start, stop) if lines[n].startswith("|"))
    row = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    lines.insert(last + 1, row)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def machine(options: argparse.Namespace) -> str:
    """Where this runs, and on how many threads."""
    import torch

    if options.device != "cpu":
        return torch.cuda.get_device_name(options.device)
    cores = len(os.sched_getaffinity(0))
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(": ")[2] if models else name
    return f"{name}, {cores} cores, {options.threads or cores} threads"


def versions(trl: str = "") -> str:
    """Of what was compared. ``trl`` is the other side's, where there is one."""
    import torch
    import transformers

    found = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{found}, TRL {trl}" if trl else found


def commit() -> str:
    """The short hash of what is checked out, with a + where files differ from it."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        )
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "constitutional_ai"])
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.returncode else "")
