"""Kills each stage of a toy run at random moments, goes on, and compares what is left in the end.

    python tests/durability/harness.py --kills 20                   every stage, every way to die
    python tests/durability/harness.py --kills 3 --stages ppo --ways kill

A case begins with the stages before, as the uninterrupted run left them. The stage is started and
killed up to ``IN_A_ROW`` times, and then left alone. Afterwards every file of the folder must equal
that of the uninterrupted run, to the byte, and no other file may be there. Only seconds may differ,
and what is drawn for people to look at (``DRAWN``).

Four ways to die: SIGKILL at a random moment of the stage; SIGKILL just before a random file
operation of the stage; SIGTERM; SIGINT, which is Ctrl-C. The last two must end in exit code 130 and
one line.

What runs is the command ``cai STAGE``, in a process forked from one that has imported torch but
computed nothing. Not covered: a signal before the command line has begun, and the loss of power.
"""

import argparse
import json
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from constitutional_ai.stage_list import STAGE_OF, words_of

WAYS = {  # name: the signal, and whether it comes before a file operation and not at a moment
    "kill": (signal.SIGKILL, False),
    "file": (signal.SIGKILL, True),
    "term": (signal.SIGTERM, False),
    "int": (signal.SIGINT, False),
}
MESSAGE = "cai: interrupted; run the same command again to continue"
STAGE_NAMES = words_of("ppo")
IN_A_ROW = 3
PATIENCE = 300  # seconds that a stage may take, and that a signal may be without effect
DRAWN = {".svg", ".png", ".html"}
TOY = [
    "model.path=lab:xxs",
    "threads=1",
    "revise.prompts=12",
    "revise.rounds=2",
    "revise.chunk=3",
    "revise.max_new_tokens=16",
    "finetune.helpful=12",
    "finetune.epochs=3",
    "finetune.batch_tokens=256",
    "finetune.checkpoint_every=3",
    "sample.red_team=12",
    "sample.helpful=12",
    "sample.chunk=6",
    "sample.max_new_tokens=16",
    "label.chunk=3",
    "label.principles=1",
    "reward.epochs=3",
    "reward.batch_pairs=4",
    "reward.checkpoint_every=3",
    "reward.ensemble=2",
    "ppo.steps=5",
    "ppo.rollouts=6",
    "ppo.max_new_tokens=12",
    "ppo.prompts=40",
    "ppo.monitor_every=2",
    "ppo.monitor_prompts=4",
    "ppo.checkpoint_every=2",
    "ppo.sl_mix=0.1",
    "ppo.kl_target=0.5",
    "evaluate.harmful=4",
    "evaluate.benign=3",
    "evaluate.borderline=3",
    "evaluate.facts=3",
    "evaluate.chunk=6",
    "evaluate.max_new_tokens=16",
]


def folder_of(stage: str) -> str:
    return f"{STAGE_OF[stage].number}-{stage}"


# ------------------------------------------------------------------------------------ one process


@dataclass(frozen=True)
class Ended:
    """How a start of a stage ended. ``code``: negative for a signal.

    ``done``: the stage was done before a signal came; ``late``: seconds from the signal to the end.
    """

    code: int
    said: str
    seconds: float
    operations: int
    done: bool
    late: float = 0.0


def import_all() -> None:
    """What every stage imports, without computing anything: a fork must not find threads."""
    import matplotlib.figure  # noqa: F401

    from constitutional_ai.cli import main as cli  # noqa: F401
    from constitutional_ai.engines import local  # noqa: F401
    from constitutional_ai.lab.world import data, gold, model, oracle  # noqa: F401
    from constitutional_ai.stages.pipeline import stage_module

    for stage in STAGE_NAMES:
        stage_module(stage)


def start(
    stage: str, out: Path, way: str = "", moment: float = 0.0, operation: int | None = None
) -> Ended:
    """Run ``cai STAGE`` in a child; send it the way's signal ``moment`` seconds after it began.

    With ``operation`` the child kills itself before it makes that many file operations and one.
    """
    said, manifest = out.with_name("said.txt"), out / folder_of(stage) / "manifest.json"
    child, ready = _fork(stage, out, said, operation)
    assert os.read(ready, 1) == b"!", said.read_text()
    began, signalled, done, status = time.monotonic(), math.inf, False, None
    if way and operation is None:
        status = _over(child, began + moment)
        done = status is not None or manifest.exists()
        if status is None:
            os.kill(child, WAYS[way][0])
            signalled = time.monotonic()
    if status is None:
        status = _over(child, time.monotonic() + PATIENCE)
    if status is None:
        os.kill(child, signal.SIGKILL)
        raise TimeoutError(f"{stage}: still there {PATIENCE} s after {way or 'its start'}")
    ended = time.monotonic()
    late = max(0.0, ended - signalled)
    with os.fdopen(ready) as counted:
        operations = int(counted.read() or 0)
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        said=said.read_text(encoding="utf-8"),
        seconds=ended - began,
        operations=operations,
        # A signal may come when all is written and only the process has not ended yet.
        done=done or (status == 0 and late < 0.2),
        late=late,
    )


def _over(child: int, until: float) -> int | None:
    """The status of a child that ends by then."""
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        if time.monotonic() >= until:
            return None
        time.sleep(0.001)


def _fork(stage: str, out: Path, said: Path, operation: int | None) -> tuple[int, int]:
    """The child that runs a stage, and a pipe on which it says that it begins."""
    ready, tell = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(ready)
        _run_stage(stage, out, said, tell, operation)
    os.close(tell)
    return child, ready


def _run_stage(stage: str, out: Path, said: Path, tell: int, operation: int | None) -> None:
    """In the child: the command, from its arguments to its exit code. Never returns."""
    code = 99
    try:
        words = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(words, 1)
        os.dup2(words, 2)
        count = watch_operations(out, operation)
        _say_when_it_begins(lambda: os.write(tell, b"!"))
        overrides = [part for setting in TOY for part in ("--set", setting)]
        from constitutional_ai.cli import start as main

        sys.argv = ["cai", stage, "lab", "--out", str(out), *overrides]
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 98
        os.write(tell, str(count()).encode())
    except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _say_when_it_begins(say: Callable[[], object]) -> None:
    """Call ``say`` once signals are handled: inside ``Commands.invoke``, before the command."""
    from typer.core import TyperGroup

    invoke = TyperGroup.invoke

    def invoke_and_say(self: Any, context: Any) -> Any:
        TyperGroup.invoke = invoke  # type: ignore[method-assign]
        say()
        return invoke(self, context)

    TyperGroup.invoke = invoke_and_say  # type: ignore[method-assign]


def watch_operations(out: Path, last: int | None) -> Callable[[], int]:
    """Count the operations that change files under ``out``; die just before number ``last``.

    Counted are those that Python announces: a file opened for writing, a name made, moved, deleted,
    a file cut. What a library writes in C into a file it opened itself stands between two of them.
    """
    inside, count = str(out), 0
    watched = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "open"}

    def seen(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in watched or not str(arguments[0]).startswith(inside):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return
        if count == last:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

    sys.addaudithook(seen)
    return lambda: count


# --------------------------------------------------------------------------------- the whole run


@dataclass(frozen=True)
class Whole:
    """A run that nobody interrupted; what each stage took: seconds, and file operations."""

    out: Path
    seconds: dict[str, float]
    operations: dict[str, int]


def whole_run(out: Path, last: str) -> Whole:
    """Make every stage up to ``last``."""
    ended: dict[str, Ended] = {}
    for stage in STAGE_NAMES[: STAGE_NAMES.index(last) + 1]:
        ended[stage] = start(stage, out)
        if ended[stage].code != 0:
            raise RuntimeError(f"{stage} fails without any interruption:\n{ended[stage].said}")
        print(f"{stage:9} {ended[stage].seconds:5.1f} s", file=sys.stderr, flush=True)
    return Whole(
        out,
        {stage: end.seconds for stage, end in ended.items()},
        {stage: end.operations for stage, end in ended.items()},
    )


def copy_before(whole: Whole, stage: str, out: Path) -> None:
    """The run folder as the uninterrupted run left it when ``stage`` was to begin."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for earlier in STAGE_NAMES[: STAGE_NAMES.index(stage)]:
        shutil.copytree(whole.out / folder_of(earlier), out / folder_of(earlier))


def differences(whole: Path, out: Path, stage: str) -> Iterator[str]:
    """What is not as in the uninterrupted run, of a stage and of those before it."""
    for name in map(folder_of, STAGE_NAMES[: STAGE_NAMES.index(stage) + 1]):
        there, here = (_files(root / name) for root in (whole, out))
        for path in sorted(there | here):
            if path not in here:
                yield f"{name}/{path}: missing"
            elif path not in there:
                yield f"{name}/{path}: left over"
            elif told(whole / name / path) != told(out / name / path):
                yield f"{name}/{path}: differs"


def _files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def told(path: Path) -> Any:
    """A file's content without the seconds in it; of what is drawn, only that it is there."""
    if path.suffix in DRAWN:
        return path.stat().st_size > 0
    if path.name == "seconds.jsonl":
        return [json.loads(line)["step"] for line in path.read_bytes().splitlines()]
    if path.name == "manifest.json":
        manifest = json.loads(path.read_bytes())
        del manifest["seconds"]
        manifest["files"].pop("seconds.jsonl", None)
        return manifest
    return path.read_bytes()


# ------------------------------------------------------------------------------------------ cases


@dataclass
class Tally:
    """What became of the kills of one stage in one way."""

    kills: int = 0
    resumed: int = 0  # cases: runs that were killed, once or more, and then left alone
    codes: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def kill_stage(whole: Whole, stage: str, way: str, kills: int, seed: int, out: Path) -> Tally:
    """Kill ``stage`` that many times; after every few, let it finish and compare."""
    rng, found = random.Random(f"{seed}/{stage}/{way}"), Tally()
    while found.kills < kills:
        copy_before(whole, stage, out)
        killed, finished = 0, False
        while not finished and killed < IN_A_ROW and found.kills < kills:
            ended = _strike(whole, stage, way, rng, out)
            finished = ended.done
            if not finished:
                killed, found.kills = killed + 1, found.kills + 1
                found.codes[ended.code] += 1
                found.wrong += wrong_end(way, ended)
        if not finished:
            ended = start(stage, out)
            if ended.code != 0:
                found.wrong.append(f"resume: exit code {ended.code}: {ended.said[-2000:]}")
        found.resumed += killed > 0
        found.wrong += differences(whole.out, out, stage)
    return found


def _strike(whole: Whole, stage: str, way: str, rng: random.Random, out: Path) -> Ended:
    if WAYS[way][1]:
        return start(stage, out, way, operation=rng.randrange(whole.operations[stage]))
    return start(stage, out, way, moment=rng.uniform(0, whole.seconds[stage]))


def wrong_end(way: str, ended: Ended) -> Iterator[str]:
    """What is wrong about how a killed process ended."""
    number = WAYS[way][0]
    expected = -signal.SIGKILL if number == signal.SIGKILL else 130
    if ended.code != expected:
        yield f"exit code {ended.code}, not {expected}: {ended.said[-2000:]}"
    elif expected == 130:
        if ended.late > 10:
            yield f"{ended.late:.0f} s from the signal to the end"
        if not ended.said.endswith(f"{MESSAGE}\n"):
            yield f"its last words: {ended.said[-500:]!r}"
        if "Traceback" in ended.said:
            yield f"a traceback: {ended.said[-3000:]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The table, and 0 where every row of it is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="of each stage, in each way")
    parser.add_argument("--stages", nargs="+", choices=STAGE_NAMES, default=STAGE_NAMES)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the table there too")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    import_all()
    rows = []
    with tempfile.TemporaryDirectory(prefix="cai-kills-") as temporary:
        # One path for all: a run folder may be moved, but what is compared here is the bytes.
        base = Path(temporary)
        whole = whole_run(base / "whole", max(options.stages, key=STAGE_NAMES.index))
        print(f"{'stage':9} {'way':5} kills  runs  ends               outcome", flush=True)
        for stage in options.stages:
            for way in options.ways:
                found = kill_stage(whole, stage, way, options.kills, options.seed, base / "run")
                ends = ", ".join(f"{n} × {code}" for code, n in found.codes.items())
                outcome = "equal" if not found.wrong else f"{len(found.wrong)} WRONG"
                print(f"{stage:9} {way:5} {found.kills:5} {found.resumed:5}  {ends:18} {outcome}")
                for line in found.wrong:
                    print(f"    {line}")
                sys.stdout.flush()
                rows.append({"stage": stage, "way": way, **vars(found)})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 1 if any(row["wrong"] for row in rows) else 0


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", HF_HUB_OFFLINE="1")
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.exit(main())
