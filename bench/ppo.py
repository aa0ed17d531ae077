"""One PPO iteration, rollout and update: ours against TRL 1.12.0's PPOTrainer.

    make bench-env
    python bench/ppo.py [--model lab:s] [--epochs 2] [--device cuda] [--write]

Every side runs in a process of its own, and they take turns, an iteration each. All have the same
weights, the same prompts (each iteration answers all of them), the same reward model, epochs,
optimiser steps, temperature, answer limit and learning rate.

    ours, separate   a value model of its own: the same algorithm as TRL's
    ours             as it comes: the value is a small network on the reward model's states
    trl              as it comes: TRL's defaults, weights in float32 as its trainer wants them
    trl-tuned-N      stop_token="eos", no samples printed, no checkpointing of gradients, products
                     in bfloat16 where ours are, N answers a forward; each N is a side

TRL 1.12.0 takes one optimiser step an epoch whatever its ``num_mini_batches`` (accelerate gathers
the gradients of all of them), so ours takes one, too. A small learning rate keeps the answers of
all sides alike; their lengths are printed. TRL's printed samples fall in few of the iterations, so
the median leaves them out, to TRL's advantage. Its as-it-comes side has no stop token: all answers
run to the limit. Agreement of the two in what they compute: bench/parity.py.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import compare
import models
import turns
from phases import Phases

from constitutional_ai.errors import UserError

OURS = ("ours-separate", "ours")
SHOWN = ("generate", "rollout forward", "train forward", "backward", "optimiser", "gc", "samples")
TRL = "1.12.0"


def main() -> None:
    """Read the command line; measure, or be one of the sides."""
    parser = compare.parser(__doc__, rounds=5)
    parser.add_argument("--model", default="lab:s")
    parser.add_argument("--rollouts", type=int, default=128, help="answers an iteration")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=2)
    sides = [*OURS, "trl"]
    parser.add_argument(
        "--sides", nargs="+", choices=sides, default=sides, help="beside the tuned ones"
    )
    parser.add_argument("--tuned", type=int, nargs="+", default=[16, 64], metavar="N")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="of ours, a forward")
    parser.add_argument("--attention", default="sdpa", help="TRL's, tuned: sdpa or eager")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        be(options)
        return
    if options.quick:
        options.rounds, options.rollouts, options.max_new_tokens = 1, 8, 8
        options.tuned, options.epochs = [4], 1
    for size in (8, *options.tuned):
        if options.rollouts % min(size, options.rollouts):
            parser.error(f"--rollouts {options.rollouts}: no multiple of {size}, a forward's")
    try:
        overlays = turns.trl_overlays(TRL)
        with tempfile.TemporaryDirectory() as made:
            rows = measured(options, overlays, Path(made))
    except UserError as error:
        parser.error(str(error))
    compare.finish("ppo", options, rows, TRL)


def measured(options: argparse.Namespace, overlays: list[Path], made: Path) -> list[compare.Row]:
    job = prepare(options, made)
    tuned = [f"trl-tuned-{n}" for n in options.tuned]
    names = [*options.sides, *tuned]
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(worker(name, job, options, overlays)) for name in names
        }
        for side in workers.values():
            side.turn()  # the first iteration allocates and compiles
        told: dict[str, list[dict[str, Any]]] = {name: [] for name in names}

        def turn(name: str) -> float:
            told[name].append(workers[name].turn())
            return options.rollouts / sum(told[name][-1]["phases"].values())

        found = compare.in_turns(
            {name: lambda _, n=name: turn(n) for name in names}, options.rounds
        )
    print_phases(told)
    best = max(tuned, key=lambda name: median(found[name]))
    return [
        compare.Row(
            f"{options.model}, {options.rollouts} answers of {options.max_new_tokens} tokens,"
            f" {options.epochs} epochs: {ours} against {theirs}",
            summary(found[ours], told[ours]),
            summary(found[theirs], told[theirs]),
            compare.ratios(found[ours], found[theirs]),
        )
        for theirs in (best, *(side for side in options.sides if side == "trl"))
        for ours in OURS
        if ours in options.sides
    ]


def worker(name: str, job: Path, options: argparse.Namespace, overlays: list[Path]) -> turns.Worker:
    import torch

    from constitutional_ai.machine import has_fast_bf16

    half = has_fast_bf16(torch.device(options.device)) and name.startswith("trl-tuned")
    return turns.Worker(
        [__file__, "--side", name, "--job", str(job)],
        overlays if name.startswith("trl") else (),
        {"ACCELERATE_MIXED_PRECISION": "bf16" if half else "no"},
    )


def prepare(options: argparse.Namespace, made: Path) -> Path:
    """What every side reads: models, prompts as conversations and as ids, the options."""
    from constitutional_ai.data.prompts import load_prompts
    from constitutional_ai.engines.local import load
    from constitutional_ai.engines.tokens import ChatTokens

    policy = models.folder_of(options.model, made)
    spelling = ChatTokens(load(policy, device="cpu")[1])
    half = options.rollouts // 2
    prompts = [
        *load_prompts("lab", "red-team", half, seed=0),
        *load_prompts("lab", "helpful", options.rollouts - half, seed=0),
    ]
    job = {
        **{k: v for k, v in vars(options).items() if k not in ("json", "job", "side")},
        "policy": policy,
        "reward": models.write_reward_model(policy, made / "reward"),
        "prompts": [prompt.model_dump() for prompt in prompts],
        "ids": [spelling.prompt(prompt.prompt) for prompt in prompts],
    }
    file = made / "job.json"
    file.write_text(json.dumps(job), encoding="utf-8")
    return file


def print_phases(told: dict[str, list[dict[str, Any]]]) -> None:
    """Median seconds by phase, and what each process held."""

    def cells(name: str) -> list[str]:
        reports = told[name]
        totals = [sum(report["phases"].values()) for report in reports]
        shown = [median(report["phases"].get(phase, 0.0) for report in reports) for phase in SHOWN]
        rest = median(totals) - sum(shown)
        return [f"{seconds:.2f}" for seconds in (*shown, rest, median(totals))]

    print("".join(f"{head:>16}" for head in ("seconds", *SHOWN, "other", "all", "peak GB")))
    for name, reports in told.items():
        line = [name, *cells(name), f"{reports[-1]['peak']:.2f}"]
        print("".join(f"{cell:>16}" for cell in line))


def summary(rates: Sequence[float], reports: Sequence[dict[str, Any]]) -> str:
    tokens = median(report["tokens"] for report in reports)
    last = reports[-1]
    return (
        f"{median(rates):.1f} answers/s of {tokens:.0f} tokens, peak {last['peak']:.2f} GB"
        f" ({last['baseline']:.2f} before models)"
    )


def be(options: argparse.Namespace) -> None:
    """One of the sides, in its own process."""
    taking = turns.Turns()
    job = json.loads(options.job.read_bytes())
    from constitutional_ai.engines.local import use_threads

    use_threads(job["threads"])
    if options.side.startswith("trl"):
        import ppo_trl

        ppo_trl.be(options.side, job, taking)
    else:
        be_ours(options.side, job, taking)


def be_ours(side: str, job: dict[str, Any], taking: turns.Turns) -> None:
    from constitutional_ai.learning import ppo
    from constitutional_ai.learning.policy import Policy
    from constitutional_ai.learning.reward_model import RewardModel
    from constitutional_ai.records import Prompt
    from constitutional_ai.stage_settings import PPOSettings

    baseline = turns.peak_memory(job["device"])
    settings = PPOSettings(
        steps=10_000,  # the schedule hardly moves over a few
        rollouts=job["rollouts"],
        epochs=job["epochs"],
        minibatches=1,
        lr=1e-5,
        warmup_steps=0,
        batch_tokens=job["batch_tokens"],
        max_new_tokens=job["max_new_tokens"],
        red_team_share=(job["rollouts"] // 2) / job["rollouts"],
        value="separate" if side.endswith("separate") else "shared",
        monitor="off",
        monitor_every=10_000,
        checkpoint_every=10_000,
    )
    with tempfile.TemporaryDirectory() as folder:
        inputs = ppo.Inputs(
            Policy.load(job["policy"], job["device"]),
            RewardModel.load(job["reward"], job["device"]),
            [Prompt.model_validate(prompt) for prompt in job["prompts"]],
            settings,
            Path(folder),
            seed=0,
        )
        trainer = ppo.PPO(inputs)
        phases = Phases()
        measure_ours(phases)
        for step in range(settings.steps):
            taking.wait()
            with phases("other"):
                trainer.one_step(step, {})
            last = trainer.logs["metrics"].path.read_text(encoding="utf-8").splitlines()[-1]
            taking.report(
                phases=phases.take(),
                tokens=json.loads(last)["tokens/length"],
                peak=turns.peak_memory(job["device"]),
                baseline=baseline,
            )


def measure_ours(phases: Phases) -> None:
    """Every forward of the rollout runs without gradient, every one of the update with it."""
    import torch

    from constitutional_ai.learning import ppo, value
    from constitutional_ai.learning.policy import Policy
    from constitutional_ai.learning.rollout import Sampler

    def forward() -> str:
        return "train forward" if torch.is_grad_enabled() else "rollout forward"

    phases.wrap(Sampler, "answer", "generate")
    phases.wrap(Sampler, "refresh", "generate")
    phases.wrap(ppo, "rollout", "rollout forward")
    phases.wrap(Policy, "logprobs", forward)
    for kind in (value.SharedValue, value.SeparateValue):
        phases.wrap(kind, "predict", "rollout forward")
        phases.wrap(kind, "fit", "train forward")
    phases.wrap(torch.Tensor, "backward", "backward")
    for module in (ppo, value):
        phases.wrap(module, "apply_gradients", "optimiser")


if __name__ == "__main__":
    main()
