"""How long the pipeline takes, and how near its training comes to what this machine can multiply.

    python bench/pipeline.py [RUN_DIR] [--model lab:s] [--threads 0]

Prints the seconds of each stage from the manifests of a finished run, if one is given; tokens a
second in generation and in finetuning; and the share of the machine's matmul rate, measured in the
same process, that finetuning reaches. Only real tokens count as work: padding is time lost.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch: see engines.local.use_threads

import torch

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.local import LocalEngine, use_threads
from constitutional_ai.errors import UserError
from constitutional_ai.learning import sft
from constitutional_ai.learning.policy import Policy
from constitutional_ai.machine import has_fast_bf16
from constitutional_ai.stage_settings import FinetuneSettings

ROWS = 384  # prompts to answer, and examples to finetune on
REPEATS = 3  # the median counts
MATMUL_SIZES = (512, 1024, 2048)
MATMUL_SECONDS = 0.5


@dataclass(frozen=True)
class Rate:
    tokens: int
    seconds: float
    flops: float = 0.0

    @property
    def tokens_a_second(self) -> float:
        return self.tokens / self.seconds


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", nargs="?", type=Path, help="the folder of a finished run")
    parser.add_argument("--model", default="lab:s", help="a model folder, or lab:SIZE")
    parser.add_argument("--threads", type=int, default=0, help="0: every core")
    options = parser.parse_args()
    use_threads(options.threads)
    print(f"{versions()}; {torch.get_num_threads()} threads; {platform.machine()}")
    try:
        if options.run:
            print_stages(options.run)
        print_rates(options.model)
    except UserError as error:
        parser.error(str(error))


def versions() -> str:
    import transformers

    python = platform.python_version()
    return f"python {python}, torch {torch.__version__}, transformers {transformers.__version__}"


def print_stages(run: Path) -> None:
    """Seconds by stage. A stage that was resumed counts its last start only."""
    manifests = sorted(run.glob("**/manifest.json"), key=lambda path: path.stat().st_mtime)
    if not manifests:
        raise UserError(f"{run}: no manifest.json in it; name the folder of a finished run")
    seconds = {
        str(path.parent.relative_to(run)): float(json.loads(path.read_bytes())["seconds"])
        for path in manifests
    }
    total = sum(seconds.values())
    print(f"\n{'stage':<16}{'seconds':>9}{'share':>8}")
    for stage, value in [*seconds.items(), ("all", total)]:
        print(f"{stage:<16}{value:>9.1f}{value / max(total, 1e-9):>8.0%}")


def print_rates(model: str) -> None:
    engine = LocalEngine.load(model, dtype="float32")
    prompts = [
        prompt.prompt
        for set_ in ("red-team", "helpful")
        for prompt in load_prompts("lab", set_, ROWS // 2, seed=0)
    ]
    sampling = Sampling(temperature=1.0, max_new_tokens=64, seed=0)
    answers = [completion.text for completion in engine.generate(prompts, sampling)]
    generation = generation_rate(engine, prompts, sampling)
    training = training_rate(model, list(zip(prompts, answers, strict=True)))
    device = str(engine.model.device)
    rates = {dtype: matmul_rate(dtype, device) for dtype in (torch.float32, torch.bfloat16)}
    used = torch.bfloat16 if has_fast_bf16(engine.model.device) else torch.float32

    print(f"\n{model} on {device}, {ROWS} rows, median of {REPEATS}")
    print(f"generation   {generation.tokens_a_second:>9,.0f} tokens/s")
    print(f"finetuning   {training.tokens_a_second:>9,.0f} tokens/s, products in {used}")
    reached = training.flops / training.seconds
    print(f"finetuning   {reached / 1e9:>9,.1f} GFLOP/s")
    for dtype, rate in rates.items():
        print(f"matmul       {rate / 1e9:>9,.1f} GFLOP/s in {dtype}; reached {reached / rate:.1%}")


def generation_rate(engine: LocalEngine, prompts: Sequence[Any], sampling: Sampling) -> Rate:
    """Answer tokens, end tokens included, a second: prompts are read in the same time."""
    tokens = 0

    def work() -> None:
        nonlocal tokens
        tokens = sum(completion.tokens for completion in engine.generate(prompts, sampling))

    seconds = median_seconds(work)
    return Rate(tokens, seconds)


def training_rate(model: str, examples: Sequence[sft.Example]) -> Rate:
    """One epoch of the finetune stage's own loop, at its own batch size."""
    policy = Policy.load(model)
    settings = FinetuneSettings(epochs=1)
    lengths = [tuple(map(len, policy.encode(prompt, answer))) for prompt, answer in examples]

    def work() -> None:
        sft.train(policy, examples, settings, seed=0, log=_ignore, tick=_ignore)

    work()  # the first epoch allocates and compiles
    seconds = median_seconds(work)
    flops = sum(training_flops(policy.model, prompt + answer, answer) for prompt, answer in lengths)
    return Rate(sum(map(sum, lengths)), seconds, flops)


def _ignore(*_: object, **__: object) -> None:
    """A log and a tick that keep nothing."""


def training_flops(model: Any, length: int, answer: int) -> float:
    """Forward and backward of one sequence: 6 FLOPs a parameter and token, and the attention.

    The head works at the answer's positions only. Attention is 2 products of 2·T²·width a layer
    forward, and twice that backward, so 12·T²·width; the masked half is computed, so it counts.
    """
    config = model.config.get_text_config()
    head: torch.Tensor = model.get_output_embeddings().weight
    embedding = model.get_input_embeddings().weight
    body = sum(p.numel() for p in model.parameters() if p is not head and p is not embedding)
    attention = 12 * config.num_hidden_layers * config.hidden_size * length**2
    return float(6 * body * length + 6 * head.numel() * answer + attention)


def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """The best FLOP/s of square products over a few sizes."""
    best = 0.0
    for size in MATMUL_SIZES:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty(size, size, device=device, dtype=dtype)
        torch.mm(a, b, out=out)
        deadline = time.perf_counter() + MATMUL_SECONDS
        while time.perf_counter() < deadline:
            seconds = timed(partial(torch.mm, a, b, out=out))
            best = max(best, 2 * size**3 / seconds)
    return best


def median_seconds(work: Callable[[], object]) -> float:
    return sorted(timed(work) for _ in range(REPEATS))[REPEATS // 2]


def timed(work: Callable[[], object]) -> float:
    _finish()
    start = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - start


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
