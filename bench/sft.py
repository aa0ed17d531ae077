"""Steps of supervised finetuning: ours against TRL 1.16's SFTTrainer.

    make bench-env
    python bench/sft.py [--models lab:s random:0.1b] [--precision float32] [--device cuda] [--write]

The examples are prompts of the laboratory with the model's own answers; the loss is on answer
tokens only, on all sides. What is compared, and how: bench/training.py.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import training

LR = 5e-4


def main() -> None:
    parser = training.parser(__doc__)
    parser.add_argument("--batch-tokens", type=int, default=2048, help="padded, a step")
    kind = training.Kind(
        "sft", __file__, lr=LR, loss="loss/sft", prepare=prepare, ours=ours, trl=trl
    )
    training.run(kind, parser)


def prepare(folder: str, _: Path, spec: str, options: argparse.Namespace) -> training.Job:
    """Examples, their ids, and the batches that our loop will make of them."""
    from constitutional_ai.data.prompts import load_prompts
    from constitutional_ai.engines.base import Sampling
    from constitutional_ai.engines.batching import length_batches
    from constitutional_ai.engines.local import LocalEngine

    rows = training.rows_of(spec, options)
    prompts = [prompt.prompt for prompt in load_prompts("lab", "red-team", rows, seed=0)]
    engine = LocalEngine.load(folder, device=options.device)
    said = engine.generate(prompts, Sampling(max_new_tokens=64, seed=0))
    examples = [(prompt, answer.text) for prompt, answer in zip(prompts, said, strict=True)]
    ids = [(engine.tokens.prompt(p), engine.tokens.answer(a)) for p, a in examples]
    lengths = [len(prompt) + len(answer) for prompt, answer in ids]
    budget = 512 if options.quick else options.batch_tokens
    return {
        "policy": folder,
        "examples": examples,
        "ids": ids,
        "lengths": lengths,
        "batch_tokens": budget,
        **training.schedule(length_batches(lengths, budget), spec, options),
    }


def ours(job: training.Job) -> partial[Any]:
    """Our loop, and what it trains."""
    from constitutional_ai.learning import sft
    from constitutional_ai.learning.policy import Policy
    from constitutional_ai.stage_settings import FinetuneSettings

    settings = FinetuneSettings(
        epochs=job["epochs"],
        lr=LR,
        batch_tokens=job["batch_tokens"],
        warmup_steps=job["warmup_steps"],
    )
    policy = Policy.load(job["policy"], job["device"])
    examples = [(prompt, answer) for prompt, answer in job["examples"]]
    return partial(sft.train, policy, examples, settings, 0)


def trl(job: training.Job, given: dict[str, Any], optimisers: Any) -> Any:
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
        optimizers=optimisers(model) if optimisers else (None, None),
    )


if __name__ == "__main__":
    main()
