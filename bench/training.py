"""Training steps against TRL's trainers: what bench/sft.py and bench/reward.py share.

Each of the two is a ``Kind`` of training: its rows, and how both trainers are built. Three sides
take turns of some steps each, in processes of their own.

    ours              the package's own loop
    trl               TRL's trainer on the very same batches in the same order, with the same
                      optimiser and schedule, without checkpointing of gradients
    trl-as-it-comes   TRL's defaults: random batches of as many rows, checkpointing, its schedule

The first two train on the same numbers, so their losses must agree: exactly but for the order of
sums in float32 (``--precision float32``), and within bfloat16's rounding otherwise. The rate is in
real tokens a second: padding is time lost.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import compare
import models
import turns

from constitutional_ai.errors import UserError

TRL = "1.16.0"
WARMUP = 5
SIDES = ("ours", "trl", "trl-as-it-comes")


Job = dict[str, Any]  # what the sides need to know, as JSON


@dataclass(frozen=True)
class Kind:
    """A kind of training. ``name`` is its section of RESULTS.md, ``script`` the file to run."""

    name: str
    script: str
    lr: float
    loss: str  # its name in the rows that our loop logs
    # (model's folder, a folder to write in, spec, options) → rows, ``lengths``, ``schedule(…)``
    prepare: Callable[[str, Path, str, argparse.Namespace], Job]
    ours: Callable[[Job], Callable[..., Any]]  # our loop, loaded: to be given a log and a tick
    trl: Callable[[Job, dict[str, Any], Any], Any]  # TRL's trainer: job, settings, optimisers


def run(kind: Kind, parser: argparse.ArgumentParser) -> None:
    """Read the command line; measure, or be one of the sides."""
    options = parser.parse_args()
    if options.side:
        be(kind, options)
        return
    fewer_if_quick(options)
    try:
        rows = [row for spec in options.models for row in measured(kind, spec, options)]
    except UserError as error:
        parser.error(str(error))
    compare.finish(kind.name, options, rows, TRL)


def parser(description: str | None) -> argparse.ArgumentParser:
    made = compare.parser(description, rounds=5)
    made.add_argument("--models", nargs="+", default=["lab:s", "random:0.1b"])
    made.add_argument("--steps", type=int, default=0, help="a turn; 0: 20, 2 if random")
    made.add_argument("--rows", type=int, default=0, help="to train on; 0: 384, 64 if random")
    made.add_argument("--precision", choices=("auto", "float32"), default="auto")
    made.add_argument("--side", help=argparse.SUPPRESS)
    made.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    return made


def fewer_if_quick(options: argparse.Namespace) -> None:
    if options.quick:
        options.rounds, options.steps, options.models = 2, 3, ["lab:xxs"]


def rows_of(spec: str, options: argparse.Namespace) -> int:
    if options.quick:
        return 32
    return options.rows or (64 if spec.startswith("random:") else 384)


def steps_a_turn(spec: str, options: argparse.Namespace) -> int:
    return options.steps or (2 if spec.startswith("random:") else 20)


def schedule(batches: list[list[int]], spec: str, options: argparse.Namespace) -> Job:
    """Of a job: as many epochs of these batches as all turns take, as our loop will order them."""
    from constitutional_ai.learning.batch import epochs

    steps = steps_a_turn(spec, options) * (options.rounds + 2)  # one turn to begin with
    count = -(-steps // len(batches))
    return {
        "epochs": count,
        "batches": epochs(batches, count, seed=0),
        "warmup_steps": WARMUP,
    }


# ------------------------------------------------------------------------------------- the parent


def measured(kind: Kind, spec: str, options: argparse.Namespace) -> list[compare.Row]:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        job = kind.prepare(models.folder_of(spec, made), made, spec, options)
        return compared(kind.script, spec, job, made, options)


def compared(
    script: str, spec: str, job: Job, made: Path, options: argparse.Namespace
) -> list[compare.Row]:
    overlays = turns.trl_overlays(TRL)
    job = {
        **job,
        "steps": steps_a_turn(spec, options),
        "device": options.device,
        "threads": options.threads,
        "precision": options.precision,
    }
    file = made / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    told: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(
                turns.Worker(
                    [script, "--side", name, "--job", str(file)],
                    overlays if name != "ours" else (),
                )
            )
            for name in SIDES
        }

        def turn(name: str) -> float:
            told[name].append(workers[name].turn())
            return told[name][-1]["tokens"] / told[name][-1]["seconds"]

        for name in SIDES:  # the first steps allocate and compile; their losses count
            turn(name)
        sides = {name: lambda _, name=name: turn(name) for name in SIDES}
        found = compare.in_turns(sides, options.rounds)
    return [
        compare.Row(
            f"{spec} against {theirs}",
            summary(found["ours"], told["ours"]),
            summary(found[theirs], told[theirs]),
            compare.ratios(found["ours"], found[theirs]),
            losses_apart(told["ours"], told["trl"]) if theirs == "trl" else {},
        )
        for theirs in SIDES[1:]
    ]


def summary(rates: Sequence[float], reports: Sequence[dict[str, Any]]) -> str:
    steps = median(len(report["losses"]) / report["seconds"] for report in reports[1:])
    peak = reports[-1]["peak"]
    return f"{median(rates):,.0f} tokens/s, {steps:.2f} steps/s, peak {peak:.2f} GB"


def losses_apart(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]]
) -> dict[str, float]:
    """Of the two curves: first and last of ours, and how far apart they are."""
    mine = [loss for report in ours for loss in report["losses"]]
    yours = [loss for report in theirs for loss in report["losses"]]
    apart = [abs(a - b) for a, b in zip(mine, yours, strict=True)]
    return {
        "steps": len(mine),
        "first loss": mine[0],
        "last loss": mine[-1],
        "largest loss difference": max(apart),
        "mean loss difference": sum(apart) / len(apart),
    }


# ----------------------------------------------------------------------------------------- a side


def be(kind: Kind, options: argparse.Namespace) -> None:
    job, taking = start(options.job)
    if options.side == "ours":
        be_ours(kind, job, Steps(job, taking))
    else:
        be_trl(kind, options.side, job, taking)


def be_ours(kind: Kind, job: Job, step: "Steps") -> None:
    train = kind.ours(job)
    log = logger(job, step, kind.loss)
    step.wait()
    train(log, silent)


class Steps:
    """Told of every step. At the end of a turn it reports, and waits for the next."""

    def __init__(self, job: Job, taking: turns.Turns) -> None:
        self.job, self.taking = job, taking
        self.losses: list[float] = []
        self.tokens = 0
        self.since = 0.0

    def wait(self) -> None:
        self.taking.wait()
        self.losses, self.tokens, self.since = [], 0, time.perf_counter()

    def __call__(self, loss: float, tokens: int) -> None:
        """``tokens`` are those of the step's rows, without padding."""
        self.losses.append(loss)
        self.tokens += tokens
        if len(self.losses) == self.job["steps"]:
            self.taking.report(
                seconds=time.perf_counter() - self.since,
                tokens=self.tokens,
                losses=self.losses,
                peak=turns.peak_memory(self.job["device"]),
            )
            self.wait()


def logger(job: Job, step: Steps, name: str) -> Callable[[dict[str, Any]], None]:
    """For our loops: tells ``step`` of each row that they log; ``name`` is the loss's."""
    sizes = (sum(job["lengths"][row] for row in batch) for batch in job["batches"])
    return lambda row: step(row[name], next(sizes))


def silent(*_: Any, **__: Any) -> None:
    """A tick that shows nothing."""


def start(file: Path) -> tuple[Job, turns.Turns]:
    """What a side begins with: its job, its threads, its precision."""
    taking = turns.Turns()
    job: Job = json.loads(file.read_bytes())
    from constitutional_ai import machine
    from constitutional_ai.engines.local import use_threads

    use_threads(job["threads"])
    if job["precision"] == "float32":
        machine.has_fast_bf16 = lambda device: False
    return job, taking


def be_trl(kind: Kind, side: str, job: Job, taking: turns.Turns) -> None:
    """TRL's trainer takes turns until it is ended."""
    import warnings

    import torch
    import transformers

    from constitutional_ai.machine import has_fast_bf16

    warnings.simplefilter("ignore")
    same = side == "trl"
    total = len(job["batches"])
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "output_dir": folder,
            "max_steps": total,
            "learning_rate": kind.lr,
            "per_device_train_batch_size": round(sum(map(len, job["batches"])) / total),
            "bf16": has_fast_bf16(torch.device(job["device"])),
            "use_cpu": job["device"] == "cpu",
            "max_length": None,
            "report_to": "none",
            "save_strategy": "no",
            "disable_tqdm": True,
            "seed": 0,
            **({"gradient_checkpointing": False} if same else {}),
        }
        optimisers = _optimisers(total, job["warmup_steps"], kind.lr) if same else None
        trainer = kind.trl(job, given, optimisers)
        if same:
            _use_batches(trainer, job["batches"])
        step, seen = Steps(job, taking), _watch_losses(trainer)

        class Told(transformers.TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *_: Any, **__: Any) -> None:
                loss, tokens = seen.pop()
                step(float(loss), int(tokens))

        trainer.add_callback(Told())
        step.wait()
        trainer.train()


def _optimisers(total: int, warmup: int, lr: float) -> Callable[[Any], Any]:
    """Optimiser and learning rate as our loops have them, for a model."""
    import torch

    from constitutional_ai.learning.descent import adamw, warmup_decay

    def made(model: Any) -> Any:
        optimiser = adamw(model.parameters(), lr)
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: warmup_decay(step, total, warmup)
        )
        return optimiser, factor

    return made


def _use_batches(trainer: Any, batches: list[list[int]]) -> None:
    from torch.utils.data import DataLoader

    def loader() -> Any:
        return trainer.accelerator.prepare(
            DataLoader(
                trainer.train_dataset, batch_sampler=batches, collate_fn=trainer.data_collator
            )
        )

    trainer.get_train_dataloader = loader


def _watch_losses(trainer: Any) -> list[tuple[Any, Any]]:
    """Gets each step's loss and its number of tokens."""
    compute, seen = trainer.compute_loss, []

    def watched(model: Any, inputs: dict[str, Any], *rest: Any, **named: Any) -> Any:
        tokens = inputs["attention_mask"].sum()
        loss = compute(model, inputs, *rest, **named)
        seen.append((loss.detach(), tokens))
        return loss

    trainer.compute_loss = watched
    return seen
