"""Steps of supervised finetuning: ours against TRL 1.16's SFTTrainer.

    make bench-env
    python bench/sft.py [--models lab:s random:0.1b] [--precision float32] [--device cuda] [--write]

The examples are prompts of the laboratory with the model's own answers; the loss is on answer
tokens only, on all sides. What is compared, and how: bench/training.py.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import compare
import models
import training

from constitutional_ai.errors import UserError

ROWS = 384
LR, WARMUP = 5e-4, 5


def main() -> None:
    """Read the command line; measure, or be one of the sides."""
    parser = training.parser(__doc__)
    parser.add_argument("--batch-tokens", type=int, default=2048, help="padded, a step")
    options = parser.parse_args()
    if options.side:
        be(options)
        return
    training.fewer_if_quick(options)
    try:
        rows = [row for spec in options.models for row in measured(spec, options)]
    except UserError as error:
        parser.error(str(error))
    compare.finish("sft", options, rows, training.TRL)


def measured(spec: str, options: argparse.Namespace) -> list[compare.Row]:
    with tempfile.TemporaryDirectory() as made:
        job = prepare(models.folder_of(spec, Path(made)), spec, options)
        return training.measured(__file__, spec, job, Path(made), options)


def prepare(folder: str, spec: str, options: argparse.Namespace) -> dict[str, Any]:
    """Examples, their ids, and the batches that our loop will make of them."""
    from constitutional_ai.data import load_prompts
    from constitutional_ai.engines.base import Sampling
    from constitutional_ai.engines.local import LocalEngine
    from constitutional_ai.learning.loop import epochs, length_batches

    rows = 32 if options.quick else 64 if spec.startswith("random:") else ROWS
    prompts = [prompt.prompt for prompt in load_prompts("lab", "red-team", rows, seed=0)]
    engine = LocalEngine(folder, device=options.device)
    said = engine.generate(prompts, Sampling(max_new_tokens=64, seed=0))
    examples = [(prompt, answer.text) for prompt, answer in zip(prompts, said, strict=True)]
    ids = [(engine.tokens.prompt(p), engine.tokens.answer(a)) for p, a in examples]
    lengths = [len(prompt) + len(answer) for prompt, answer in ids]
    budget = 512 if options.quick else options.batch_tokens
    batches = length_batches(lengths, budget)
    steps = training.steps_a_turn(spec, options) * (options.rounds + 2)  # one turn to begin with
    count = -(-steps // len(batches))
    return {
        "policy": folder,
        "examples": examples,
        "ids": ids,
        "lengths": lengths,
        "epochs": count,
        "batch_tokens": budget,
        "batches": epochs(batches, count, seed=0),
        "warmup_steps": WARMUP,
    }


def be(options: argparse.Namespace) -> None:
    job, taking = training.start(options.job)
    if options.side == "ours":
        be_ours(job, training.Steps(job, taking))
    else:
        training.be_trl(options.side, job, taking, lambda *given: make(job, *given), LR)


def be_ours(job: dict[str, Any], step: training.Steps) -> None:
    from constitutional_ai.learning import sft
    from constitutional_ai.learning.policy import Policy
    from constitutional_ai.settings import FinetuneSettings

    settings = FinetuneSettings(
        epochs=job["epochs"], lr=LR, batch_tokens=job["batch_tokens"], warmup_steps=WARMUP
    )
    policy = Policy.load(job["policy"], job["device"])
    examples = [(prompt, answer) for prompt, answer in job["examples"]]
    log = training.logger(job, step, "loss/sft")
    step.wait()
    sft.train(policy, examples, settings, 0, log, training.silent)


def make(job: dict[str, Any], given: dict[str, Any], schedule: Any) -> Any:
    """An SFTTrainer on the ids that ours trains on; -100 marks what has no loss."""
    import torch
    import transformers
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = {
        "input_ids": [prompt + answer for prompt, answer in job["ids"]],
        "labels": [[-100] * len(prompt) + answer for prompt, answer in job["ids"]],
    }
    model = transformers.AutoModelForCausalLM.from_pretrained(job["policy"], dtype=torch.float32)
    return SFTTrainer(
        model=model,
        args=SFTConfig(**given),
        train_dataset=Dataset.from_dict(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(job["policy"]),
        optimizers=schedule(model, LR) if schedule else (None, None),
    )


if __name__ == "__main__":
    main()
