"""Goes on with a pretrained lab model, so that its judge withstands what is said to it.

    cai lab harden lab:s --out DIR

More documents of judging, in which far more of the answers say nothing, plead, or go on for ever;
claims about animals that nobody has heard of, against silence and against padding; and facts in a
further form (``tempting.py``). Half of the learning rates at first, falling to zero; new
optimisers. What `cai judge attack` says to the lab is not in it, save what pretraining showed too:
most of what stands for silence, and all that is repeated, is made by chance.

``lab:judge`` was made so from ``lab:s``. A killed run goes on from ``DIR/checkpoint``.
"""

import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

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

TOKENS = 2_000_000
RATE = 0.5
# Seeds of the documents, in blocks that pretraining leaves free.
_BLOCK, _HOLD_OUT, _TRAINING = 1_000_000, 800_000, 800_010
_HOLD_OUT_TOKENS = 100_000


def harden(
    start: str | Path,
    out: str | Path,
    tokens: int = TOKENS,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Train a lab model on, ``lab:s`` or a folder, for ``tokens`` tokens, into the folder ``out``.

    Raises ModelError where ``start`` holds no model or is ``out``, or ``out`` the checkpoint of
    another run; TrainingDiverged on a NaN.
    """
    named = isinstance(start, str) and start.startswith("lab:")
    start = model_path(str(start)) if named else Path(start)
    out, say = Path(out), progress or (lambda line: None)
    if not (start / "model.safetensors").is_file():
        raise ModelError(f"{start} holds no model; make one with `cai lab pretrain --out {start}`")
    if start.resolve() == out.resolve():
        raise ModelError(f"--out {out} is the model to start from; name another folder")
    tokenizer = Tokenizer.from_str(AutoTokenizer.from_pretrained(start).backend_tokenizer.to_str())
    first = seed * _BLOCK
    with workers() as pool:
        kept = make_corpus(pool, documents, tokenizer, first + _HOLD_OUT, _HOLD_OUT_TOKENS)
        corpus = make_corpus(pool, documents, tokenizer, first + _TRAINING, tokens)
    order = plan(corpus.lengths, BATCH_TOKENS, seed)
    with no_progress_bar():
        model = LlamaForCausalLM.from_pretrained(start).float()
    identity = {
        "start": f"{zlib.crc32((start / 'model.safetensors').read_bytes()):08x}",
        "corpus": f"{zlib.crc32(corpus.ids.tobytes()):08x}",
    }
    trainer = Trainer(model, identity, schedule=Schedule(_falling, lambda share: VERDICT[1]))
    checkpoint = out / "checkpoint" / "state.safetensors"
    if checkpoint.exists():
        trainer.load(checkpoint)
        say(f"resumed at step {trainer.step}")
    with fast_training(model):
        say(f"before: {held_out(model, kept)}")
        trainer.run(corpus, order, kept, lambda: trainer.save(checkpoint), say)
        say(f"final: {held_out(model, kept)}")
    save(model, wrap(tokenizer, MAX_TOKENS), out)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return out


def _falling(step: int, share: float) -> float:
    return RATE * min(1.0, (step + 1) / WARMUP_STEPS) * (1 - share)
