"""Training and generation as a share of what this machine multiplies and moves.

    python bench/roofline.py [--models lab:s random:0.1b] [--device cuda] [--write]

Each round measures the machine's rates (square products in float32 and bfloat16, the best of a few
sizes; copying, and reading weights as a product with a vector does), then one epoch of finetuning,
then one call of generation, and compares within the round. On a GPU the share of the bfloat16 rate
is what is called MFU.

training     model FLOPs a second over the rate of products, in the precision that training uses.
             6 FLOPs a parameter and token, and the attention; padding is time lost.
generation   the least time that the machine could take, over the time it took. Prompts cost FLOPs;
             a step of decoding costs its FLOPs or the reading of all weights once and of each row's
             keys and values, whichever is slower. Also bytes a second over the memory's rate.

A model that fits into a CPU's cache is read faster than memory can be: then the share of the
memory's rate can pass 1, and the least time is not the least.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import compare
import models
import torch
from pipeline import timed, training_flops

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.batching import length_batches
from constitutional_ai.engines.local import LocalEngine, use_threads
from constitutional_ai.errors import UserError
from constitutional_ai.learning import sft
from constitutional_ai.learning.policy import Policy
from constitutional_ai.machine import has_fast_bf16
from constitutional_ai.records import Conversation
from constitutional_ai.stage_settings import FinetuneSettings

SECONDS = 0.4  # of each rate in each round
NEW_TOKENS = 64


@dataclass(frozen=True)
class Rates:
    """What the machine did in this round: FLOP/s by precision, bytes a second."""

    flops: dict[torch.dtype, float]
    copy: float
    read: float

    @property
    def memory(self) -> float:
        return max(self.copy, self.read)


@dataclass(frozen=True)
class Round:
    rates: Rates
    trained_tokens: int
    trained_flops: float
    train_seconds: float
    said_tokens: int
    said_flops: float
    said_bytes: float
    least_seconds: float
    say_seconds: float


def main() -> None:
    """Read the command line, measure, print."""
    parser = compare.parser(__doc__, rounds=5)
    parser.add_argument("--models", nargs="+", default=["lab:s", "random:0.1b"])
    parser.add_argument("--rows", type=int, default=0, help="of each part; 0: 384, 48 if random")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="of training, a step")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.rows, options.models = 2, 8, ["lab:xxs"]
    use_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory() as made:
            rows = [row for spec in options.models for row in measured(spec, Path(made), options)]
    except UserError as error:
        parser.error(str(error))
    compare.finish("roofline", options, rows)


def measured(spec: str, made: Path, options: argparse.Namespace) -> list[compare.Row]:
    folder = models.folder_of(spec, made)
    count = options.rows or (48 if spec.startswith("random:") else 384)
    prompts = [prompt.prompt for prompt in load_prompts("lab", "helpful", count, seed=0)]
    speaker, learner = Speaker(folder, prompts, options), Learner(folder, options)
    learner.learn(speaker.examples())  # the first epoch allocates
    rounds = [one_round(speaker, learner, options) for _ in range(options.rounds)]
    trained_in = torch.bfloat16 if has_fast_bf16(learner.policy.device) else torch.float32
    return [training_row(spec, rounds, trained_in), *generation_rows(spec, rounds, speaker.dtype)]


def one_round(speaker: "Speaker", learner: "Learner", options: argparse.Namespace) -> Round:
    rates = machine_rates(options.device, options.quick)
    examples = speaker.examples()
    train_seconds = timed(partial(learner.learn, examples))
    lengths = [tuple(map(len, learner.policy.encode(*example))) for example in examples]
    say_seconds = timed(speaker.speak)
    flops, moved, least = speaker.least(rates)
    return Round(
        rates=rates,
        trained_tokens=sum(map(sum, lengths)),
        trained_flops=sum(training_flops(learner.policy.model, p + a, a) for p, a in lengths),
        train_seconds=train_seconds,
        said_tokens=sum(answer for _, answer in speaker.lengths),
        said_flops=flops,
        said_bytes=moved,
        least_seconds=least,
        say_seconds=say_seconds,
    )


def training_row(spec: str, rounds: Sequence[Round], used: torch.dtype) -> compare.Row:
    reached = [r.trained_flops / r.train_seconds for r in rounds]
    rates = {dtype: [r.rates.flops[dtype] for r in rounds] for dtype in rounds[0].rates.flops}
    tokens = median(r.trained_tokens / r.train_seconds for r in rounds)
    (other,) = rates.keys() - {used}
    return compare.Row(
        f"{spec}, training, of {_name(used)} products",
        f"{median(reached) / 1e9:,.1f} GFLOP/s, {tokens:,.0f} tokens/s",
        f"{median(rates[used]) / 1e9:,.1f} GFLOP/s",
        compare.ratios(reached, rates[used]),
        {f"share of {_name(other)} products": median(compare.ratios(reached, rates[other]))},
    )


def generation_rows(spec: str, rounds: Sequence[Round], used: torch.dtype) -> list[compare.Row]:
    tokens = f"{median(r.said_tokens / r.say_seconds for r in rounds):,.0f} tokens/s"
    flops = [r.said_flops / r.say_seconds for r in rounds]
    moved = [r.said_bytes / r.say_seconds for r in rounds]
    product, memory = [r.rates.flops[used] for r in rounds], [r.rates.memory for r in rounds]
    return [
        compare.Row(
            f"{spec}, generation, of {_name(used)} products",
            f"{median(flops) / 1e9:,.1f} GFLOP/s, {tokens}",
            f"{median(product) / 1e9:,.1f} GFLOP/s",
            compare.ratios(flops, product),
        ),
        compare.Row(
            f"{spec}, generation, of the memory's rate",
            f"{median(moved) / 1e9:,.2f} GB/s, {tokens}",
            f"{median(memory) / 1e9:,.2f} GB/s",
            compare.ratios(moved, memory),
        ),
        compare.Row(
            f"{spec}, generation, least time of time taken",
            f"{median(r.say_seconds for r in rounds):,.2f} s, {tokens}",
            f"{median(r.least_seconds for r in rounds):,.2f} s at least",
            [r.least_seconds / r.say_seconds for r in rounds],
        ),
    ]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class Learner:
    """The finetune stage's own loop, one epoch at a time."""

    def __init__(self, folder: str, options: argparse.Namespace) -> None:
        self.policy = Policy.load(folder, options.device)
        # A tiny learning rate: the work is the same, and the model stays what it is.
        self.settings = FinetuneSettings(epochs=1, lr=1e-8, batch_tokens=options.batch_tokens)

    def learn(self, examples: Sequence[sft.Example]) -> None:
        sft.train(self.policy, examples, self.settings, seed=0, log=_nothing, tick=_nothing)


def _nothing(*_: object, **__: object) -> None:
    """A log and a tick that keep nothing."""


class Speaker:
    """The local engine, answering the same prompts in each round."""

    def __init__(
        self, folder: str, prompts: list[Conversation], options: argparse.Namespace
    ) -> None:
        self.engine = LocalEngine.load(folder, device=options.device)
        self.prompts = prompts
        self.dtype: torch.dtype = self.engine.model.dtype
        self.new_tokens = 8 if options.quick else NEW_TOKENS
        self.speak()

    def speak(self) -> None:
        sampling = Sampling(max_new_tokens=self.new_tokens, seed=0)
        said = self.engine.generate(self.prompts, sampling)
        self.answers = [answer.text for answer in said]
        read = [len(self.engine.tokens.prompt(prompt)) for prompt in self.prompts]
        self.lengths = list(zip(read, (answer.tokens for answer in said), strict=True))

    def examples(self) -> list[sft.Example]:
        return list(zip(self.prompts, self.answers, strict=True))

    def least(self, rates: Rates) -> tuple[float, float, float]:
        """FLOPs, bytes of decoding, and the least seconds, over the batches that were made."""
        cost = Cost.of(self.engine.model)
        flops = moved = seconds = 0.0
        limits = [read + self.new_tokens for read, _ in self.lengths]
        for rows in length_batches(limits, self.engine.batch_tokens, longest_first=True):
            some = [self.lengths[row] for row in rows]
            reading = sum(cost.flops(read, 0) for read, _ in some)
            flops += reading
            seconds += reading / rates.flops[self.dtype]
            for step in range(1, max(said for _, said in some)):  # the first comes of reading
                alive = [read + step for read, said in some if said > step]
                work = sum(cost.flops(1, seen) for seen in alive)
                size = cost.weight_bytes + cost.cached_bytes * sum(alive)
                flops, moved = flops + work, moved + size
                seconds += max(work / rates.flops[self.dtype], size / rates.memory)
        return flops, moved, seconds


@dataclass(frozen=True)
class Cost:
    """Of one forward: FLOPs a token by part, and bytes read for each step and cached token."""

    body: int  # parameters that every token passes, the head apart
    head: int
    width: int  # of all heads' queries together, times layers
    weight_bytes: int
    cached_bytes: int

    @classmethod
    def of(cls, model: Any) -> "Cost":
        config = model.config.get_text_config()
        head, table = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        body = sum(p.numel() for p in model.parameters() if p is not head and p is not table)
        each = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        keys = config.num_hidden_layers * config.num_key_value_heads * each
        size = head.element_size()
        return cls(
            body=body,
            head=head.numel(),
            width=config.num_hidden_layers * config.num_attention_heads * each,
            weight_bytes=(body + head.numel()) * size,
            cached_bytes=2 * keys * size,
        )

    def flops(self, tokens: int, seen: int) -> float:
        """Of ``tokens`` new ones behind ``seen`` cached ones; the head at the last of them.

        A query with each key it may see, and the weights with each value: 4 FLOPs a pair and width.
        """
        pairs = tokens * seen + tokens * (tokens + 1) / 2
        return 2.0 * self.body * tokens + 2.0 * self.head + 4.0 * self.width * pairs


# ------------------------------------------------------------------------------------ the machine


def machine_rates(device: str, quick: bool) -> Rates:
    seconds = 0.05 if quick else SECONDS
    sizes = (512, 1024, 2048) if device == "cpu" else (2048, 4096, 8192)
    return Rates(
        flops={
            dtype: max(product_rate(size, dtype, device, seconds) for size in sizes)
            for dtype in (torch.float32, torch.bfloat16)
        },
        copy=copy_rate(device, seconds),
        read=read_rate(device, seconds),
    )


def product_rate(size: int, dtype: torch.dtype, device: str, seconds: float) -> float:
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / fastest(partial(torch.mm, a, b, out=out), seconds)


def copy_rate(device: str, seconds: float) -> float:
    """Bytes read and bytes written a second, far beyond any cache."""
    source = torch.ones(64 * 2**20, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / fastest(partial(target.copy_, source), seconds)


def read_rate(device: str, seconds: float) -> float:
    """Bytes read a second by a matrix–vector product, which is what decoding one row does."""
    matrix = torch.ones(8192, 8192, device=device)
    vector = torch.ones(8192, device=device)
    return matrix.nbytes / fastest(partial(torch.mv, matrix, vector), seconds)


def fastest(work: Callable[[], object], seconds: float) -> float:
    """The least seconds of a call, over as many as fit; the first does not count."""
    work()
    found = [timed(work)]
    while sum(found) < seconds:
        found.append(timed(work))
    return min(found)


if __name__ == "__main__":
    main()
