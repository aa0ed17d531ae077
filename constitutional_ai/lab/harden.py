"""Goes on with a pretrained lab model, so that its judge withstands what is said to it.

    cai lab harden lab:s --out DIR

More documents of judging, in which far more of the answers say nothing, plead, or go on for ever;
claims about animals that nobody has heard of, against silence and against padding; and facts in a
further form (``tempting.py``). Half of the learning rates at first, falling to zero; new
optimisers. What `cai judge attack` says to the lab is not in it, save what pretraining showed too:
most of what stands for silence, and all that is repeated, is made by chance.

A model trained so withstands, and has forgotten some facts; which ones is chance. So several runs
start from the same model, each on documents of its own, and the mean of their weights and of the
start's is kept (WiSE-FT, Wortsman et al. 2021, arXiv 2109.01903; model soups, 2022, arXiv
2203.05482): what they learnt in common stays, and what each of them lost comes back.

``lab:judge`` was made so from ``lab:s``. A killed call goes on from ``DIR/checkpoint``.
"""

import shutil
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaForCausalLM

from constitutional_ai.errors import ModelError
from constitutional_ai.lab.batches import make_corpus, plan, workers
from constitutional_ai.lab.model import MAX_TOKENS, model_path, no_progress_bar, save
from constitutional_ai.lab.pretrain import (
    BATCH_TOKENS,
    VERDICT,
    WARMUP_STEPS,
    Schedule,
    Trainer,
    held_out,
)
from constitutional_ai.lab.tempting import documents
from constitutional_ai.lab.tokenizer import wrap
from constitutional_ai.learning.attention import fast_training

RUNS = 3
TOKENS = 2_000_000  # of each run
KEPT = 0.25  # what the start weighs in the mean; the runs have equal parts of the rest
RATE = 0.5
# Seeds of the documents, in blocks that pretraining leaves free.
_BLOCK, _HOLD_OUT, _TRAINING = 1_000_000, 800_000, 800_010
_HOLD_OUT_TOKENS = 100_000

Say = Callable[[str], None]


def harden(
    start: str | Path,
    out: str | Path,
    tokens: int = TOKENS,
    runs: int = RUNS,
    progress: Say | None = None,
) -> Path:
    """Train a lab model on, ``lab:s`` or a folder, ``runs`` times for ``tokens`` tokens, and write
    the mean of what comes out and of the start into the folder ``out``.

    Raises ModelError where ``start`` holds no model or is ``out``, or ``out`` the checkpoint of
    another call; TrainingDiverged on a NaN.
    """
    named = isinstance(start, str) and start.startswith("lab:")
    start = model_path(str(start)) if named else Path(start)
    out, say = Path(out), progress or (lambda line: None)
    if not (start / "model.safetensors").is_file():
        raise ModelError(f"{start} holds no model; make one with `cai lab pretrain --out {start}`")
    if start.resolve() == out.resolve():
        raise ModelError(f"--out {out} is the model to start from; name another folder")
    checkpoint = out / "checkpoint"
    trained = []
    for run in range(runs):
        say(f"run {run + 1} of {runs}")
        trained.append(_train(start, checkpoint / f"run-{run}", tokens, run, say))
    save(mean(start, trained), wrap(_tokenizer(start), MAX_TOKENS), out)
    shutil.rmtree(checkpoint)
    return out


def _train(start: Path, out: Path, tokens: int, seed: int, say: Say) -> Path:
    """One run. Its last state stays beside the model, and says that the run is over."""
    tokenizer, first = _tokenizer(start), seed * _BLOCK
    with workers() as pool:
        kept = make_corpus(pool, documents, tokenizer, first + _HOLD_OUT, _HOLD_OUT_TOKENS)
        corpus = make_corpus(pool, documents, tokenizer, first + _TRAINING, tokens)
    order = plan(corpus.lengths, BATCH_TOKENS, seed)
    model = _read(start)
    identity = {
        "start": f"{zlib.crc32((start / 'model.safetensors').read_bytes()):08x}",
        "corpus": f"{zlib.crc32(corpus.ids.tobytes()):08x}",
    }
    trainer = Trainer(model, identity, schedule=Schedule(_falling, lambda share: VERDICT[1]))
    state = out / "state.safetensors"
    if state.exists():
        trainer.load(state)
        say(f"resumed at step {trainer.step}")
    with fast_training(model):
        say(f"before: {held_out(model, kept)}")
        trainer.run(corpus, order, kept, lambda: trainer.save(state), say)
        say(f"final: {held_out(model, kept)}")
    trainer.save(state)
    save(model, wrap(tokenizer, MAX_TOKENS), out)
    return out


def mean(start: Path, trained: Sequence[Path]) -> LlamaForCausalLM:
    """The model whose weights are ``KEPT`` of the start's, and of each other's an equal part."""
    models = [_read(folder) for folder in (start, *trained)]
    parts = [KEPT, *[(1 - KEPT) / len(trained)] * len(trained)]
    with torch.no_grad():
        for same in zip(*(model.parameters() for model in models), strict=True):
            total = torch.stack([part * p for part, p in zip(parts, same, strict=True)]).sum(0)
            same[0].copy_(total)
    return models[0]


def _read(folder: Path) -> LlamaForCausalLM:
    with no_progress_bar():
        model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder).float()
    return model


def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_str(AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str())


def _falling(step: int, share: float) -> float:
    return RATE * min(1.0, (step + 1) / WARMUP_STEPS) * (1 - share)
