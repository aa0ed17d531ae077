"""Goes on with a pretrained lab model, so that its judge withstands what is said to it.

    cai lab pretrain --size s --tokens 120000000 --batch-tokens 32768 --out BASE
    cai lab harden BASE --out DIR

This made ``lab:judge``: the first command took six minutes on a GPU (``--device cuda``; hours on a
CPU), the second 35 minutes on two cores. The pretraining is that of ``lab:s``, but longer: a judge
that knows the facts is far from 0.5 when asked about them, so little can turn it. ``cai lab harden
lab:s`` makes a judge that withstands less.

Each step learns from two sources. In documents of judging (``attack_questions.py``) more answers
say nothing, and claims about unheard-of animals win against silence: a judge must be taught what
silence is worth. Ten times as many tokens are questions whose verdict no addition may move
(``consistency.py``). They hold the model to what it said before, so it loses no fact. The learning
rates start at half and fall to zero, with new optimisers. The attacks of `cai judge attack` are not
in it, apart from those that pretraining showed too: most silence and padding is made by chance.

A killed call goes on from ``DIR/checkpoint``.
"""

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

from tokenizers import Tokenizer
from torch import nn
from transformers import AutoTokenizer, LlamaForCausalLM

from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.errors import ModelError
from constitutional_ai.lab.training import consistency
from constitutional_ai.lab.training.attack_questions import documents
from constitutional_ai.lab.training.batches import make_corpus, plan, workers
from constitutional_ai.lab.training.pretrain import (
    BATCH_TOKENS,
    VERDICT,
    WARMUP_STEPS,
    Schedule,
    Trainer,
    held_out,
)
from constitutional_ai.lab.world.model import MAX_TOKENS, no_progress_bar, save
from constitutional_ai.lab.world.sizes import model_path
from constitutional_ai.lab.world.tokenizer import wrap
from constitutional_ai.learning.attention import fast_training
from constitutional_ai.machine import device_of

TOKENS = 1_400_000  # of documents
QUESTIONS = 10  # times as many tokens
WEIGHT = 2.0  # of the questions' loss
RATE = 0.5
# Seeds of the documents, from a block that pretraining leaves free.
_HOLD_OUT, _TRAINING = 800_000, 800_010
_HOLD_OUT_TOKENS = 100_000

Say = Callable[[str], None]


def harden(
    start: str | Path,
    out: str | Path,
    tokens: int = TOKENS,
    progress: Say | None = None,
    device: str = "cpu",
) -> Path:
    """Train a lab model further, into the folder ``out``. ``start``: ``lab:s`` or a folder.

    It reads ``tokens`` tokens of documents and QUESTIONS times as many of questions. Raises
    ModelError if ``start`` holds no model or is ``out``, or if ``out`` holds the checkpoint of
    another call; SettingsError for a missing device; TrainingDiverged on a NaN.
    """
    start = model_path(str(start)) if ModelSpec.parse(start).kind == "lab" else Path(start)
    out, say, where = Path(out), progress or (lambda line: None), device_of(device)
    if not (start / "model.safetensors").is_file():
        raise ModelError(f"{start} holds no model; make one with `cai lab pretrain --out {start}`")
    if start.resolve() == out.resolve():
        raise ModelError(f"--out {out} is the model to start from; name another folder")
    checkpoint = out / "checkpoint"
    model, tokenizer = _read(start), _tokenizer(start)
    nn.Module.to(model, where)
    weights = f"{zlib.crc32((start / 'model.safetensors').read_bytes()):08x}"
    with workers() as pool, fast_training(model):
        kept = make_corpus(pool, documents, tokenizer, _HOLD_OUT, _HOLD_OUT_TOKENS)
        corpus = make_corpus(pool, documents, tokenizer, _TRAINING, tokens)
        say("asking the start what it thinks without additions")
        questions = consistency.ask(
            model, tokenizer, pool, 0, QUESTIONS * tokens, checkpoint / weights
        )
    with fast_training(model):
        asked, order = questions.order(0), plan(corpus.lengths, BATCH_TOKENS, 0)
        identity = {
            "start": weights,
            "corpus": f"{zlib.crc32(corpus.ids.tobytes()):08x}",
            "questions": f"{zlib.crc32(questions.shown.ids.tobytes()):08x}",
        }
        trainer = Trainer(
            model,
            checkpoint / "state",
            identity,
            schedule=Schedule(_falling, lambda share: VERDICT[1]),
            further=lambda step: questions.learn(model, asked[step % len(asked)], WEIGHT),
        )
        trainer.resume(say)
        say(f"before: {held_out(model, kept)}")
        trainer.run(corpus, order, kept, trainer.save, say)
        say(f"final: {held_out(model, kept)}")
    save(model, wrap(tokenizer, MAX_TOKENS), out)
    shutil.rmtree(checkpoint)
    return out


def _read(folder: Path) -> LlamaForCausalLM:
    with no_progress_bar():
        model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder).float()
    return model


def _tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_str(AutoTokenizer.from_pretrained(folder).backend_tokenizer.to_str())


def _falling(step: int, share: float) -> float:
    return RATE * min(1.0, (step + 1) / WARMUP_STEPS) * (1 - share)
