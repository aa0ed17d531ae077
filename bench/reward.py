"""Steps of reward modelling: ours against TRL 1.16's RewardTrainer.

    make bench-env
    python bench/reward.py [--models lab:s random:0.1b] [--precision float32] [--write]

TRL knows hard labels only, so ours gets them, too: every pair has P(chosen better) = 1, and the
small penalty on scores is off. Then both minimise Bradley and Terry's loss. What is compared, and
how: bench/training.py.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import models
import training

LR = 6e-4


def main() -> None:
    parser = training.parser(__doc__)
    parser.add_argument("--batch-pairs", type=int, default=0, help="a step; 0: 32, 8 if random")
    kind = training.Kind(
        "reward", __file__, lr=LR, loss="loss/preference", prepare=prepare, ours=ours, trl=trl
    )
    training.run(kind, parser)


def prepare(folder: str, made: Path, spec: str, options: argparse.Namespace) -> training.Job:
    """Pairs of answers to a prompt, their ids, and the batches that our loop will make of them."""
    from constitutional_ai.data.prompts import load_prompts
    from constitutional_ai.engines.base import Sampling
    from constitutional_ai.engines.local import LocalEngine

    random_ = spec.startswith("random:")
    rows = training.rows_of(spec, options)
    size = options.batch_pairs or (4 if options.quick else 8 if random_ else 32)
    prompts = [prompt.prompt for prompt in load_prompts("lab", "red-team", rows, seed=0)]
    engine = LocalEngine.load(folder, device=options.device)
    said = [engine.generate(prompts, Sampling(max_new_tokens=64, seed=seed)) for seed in (0, 1)]
    pairs = [(p, a.text, b.text) for p, a, b in zip(prompts, *said, strict=True)]
    spell = engine.tokens
    ids = [[spell.prompt(p) + spell.answer(text) for text in both] for p, *both in pairs]
    order = sorted(range(rows), key=lambda n: max(map(len, ids[n])))
    batches = [order[first : first + size] for first in range(0, rows, size)]
    return {
        "pairs": pairs,
        "ids": ids,
        "lengths": [len(chosen) + len(rejected) for chosen, rejected in ids],
        "batch_pairs": size,
        "reward": models.write_reward_model(folder, made / "reward"),
        **training.schedule(batches, spec, options),
    }


def ours(job: training.Job) -> partial[Any]:
    """Our loop, and what it trains."""
    from constitutional_ai.learning import reward_model
    from constitutional_ai.learning.reward_model import LabelledPair, RewardModel
    from constitutional_ai.stage_settings import RewardSettings

    settings = RewardSettings(
        epochs=job["epochs"],
        lr=LR,
        batch_pairs=job["batch_pairs"],
        warmup_steps=job["warmup_steps"],
        label_margin=0.0,
        score_l2=0.0,
    )
    pairs = [LabelledPair(*pair, p=1.0) for pair in job["pairs"]]
    reward = RewardModel.load(job["reward"], job["device"])
    return partial(reward_model.train, reward, pairs, settings, 0)


def trl(job: training.Job, given: dict[str, Any], optimisers: Any) -> Any:
    """A RewardTrainer on the ids that ours trains on."""
    import torch
    import transformers
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    rows = {
        "chosen_ids": [chosen for chosen, _ in job["ids"]],
        "rejected_ids": [rejected for _, rejected in job["ids"]],
    }
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        job["reward"], num_labels=1, dtype=torch.float32
    )
    return RewardTrainer(
        model=model,
        args=RewardConfig(**given),
        train_dataset=Dataset.from_dict(rows),
        processing_class=transformers.AutoTokenizer.from_pretrained(job["reward"]),
        optimizers=optimisers(model) if optimisers else (None, None),
    )


if __name__ == "__main__":
    main()
