"""The default engine: any causal language model of transformers, in this process.

Weights come from safetensors only, and code from a model's repository is never run.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from constitutional_ai.engines import llama
from constitutional_ai.engines.base import Completion, Own, Sampling, read_each
from constitutional_ai.engines.causal import context_in
from constitutional_ai.engines.decode import BATCH_TOKENS, room, sample_tokens
from constitutional_ai.engines.hub import hub_problem
from constitutional_ai.engines.options import Question, option_scores
from constitutional_ai.engines.packed import pack
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.errors import ModelError, SettingsError
from constitutional_ai.machine import device_of, has_fast_bf16
from constitutional_ai.records import Conversation

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

FORWARD_TOKENS = 4_096
WIDE = 64  # of an attention head


class LocalEngine:
    """A model and its tokenizer, to be asked. The weights may be in the midst of training.

    ``batch_tokens`` bounds the memory of a batch.
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str = "live", batch_tokens: int = BATCH_TOKENS
    ) -> None:
        self.name = name
        self.model, self.tokenizer = model, tokenizer
        self.tokens = ChatTokens(tokenizer)
        self.batch_tokens = batch_tokens

    @classmethod
    def load(
        cls,
        path: str | Path,
        dtype: str = "auto",
        device: str = "auto",
        threads: int = 0,
        batch_tokens: int = BATCH_TOKENS,
        offline: bool = False,
    ) -> Self:
        """A model folder, a hub id (``hub/id@revision``) or a laboratory model ("lab:s").

        ``threads`` 0 leaves torch's setting alone. The rest as for ``load``.
        """
        if threads:
            use_threads(threads)
        model, tokenizer = load(path, dtype, device, offline)
        if model.device.type == "cpu" and not llama.fits(model):
            pack(model)
        return cls(model, tokenizer, str(path), batch_tokens)

    @property
    def own(self) -> Own:
        """As the model's generation_config.json says; 1 where it says nothing."""
        config = getattr(self.model, "generation_config", None)
        named = (getattr(config, name, None) for name in Own._fields)
        return Own(*(1.0 if value is None else float(value) for value in named))

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion for each conversation, in order.

        If prompt and ``max_new_tokens`` exceed the model's context, the answer ends with the
        context, unfinished. A prompt that fills the context alone, or cannot be spelt, fails.
        """
        tokens, model = self.tokens, self.model
        prompts, failed = read_each(conversations, self._prompt)
        answers = sample_tokens(
            model,
            list(prompts.values()),
            self.own.fill(sampling),
            tokens.end_id,
            tokens.pad_id,
            self.batch_tokens,
        )
        answered = dict(zip(prompts, answers, strict=True))
        return [
            Completion("", 0, False, failed=failed[row], unfit=True)
            if row in failed
            else Completion(
                tokens.text(answered[row]), len(answered[row]), tokens.ended(answered[row])
            )
            for row in range(len(conversations))
        ]

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float]]:
        """Natural log of each option's probability, over the spellings that a reply may begin with.

        One forward a batch, and its last position only; one token more where a tokenizer begins
        all options with the same one (engines/options.py). A question that does not fit has NaN for
        every option. Raises ValueError for options that do not differ before one of them ends.
        """
        questions, _ = read_each(conversations, lambda turns: self._question(turns, options))
        asked = list(questions.values())
        scores = option_scores(self.model, self.tokens, asked, self._forward_tokens)
        lost = [math.nan] * len(options)
        return [
            scores[questions[row]] if row in questions else lost
            for row in range(len(conversations))
        ]

    @property
    def _forward_tokens(self) -> int:
        """Tokens of one forward. A CPU's cache holds few: 4k took 0.4 of the time of 16k."""
        on_cpu = self.model.device.type == "cpu"
        return min(self.batch_tokens, FORWARD_TOKENS) if on_cpu else self.batch_tokens

    def reads(self, conversation: Conversation) -> bool:
        """Whether the model can answer it: it can be spelt, and leaves room."""
        return not read_each([conversation], self._prompt)[1]

    def _prompt(self, conversation: Conversation) -> list[int]:
        prompt = self.tokens.prompt(conversation)
        room(self.model, len(prompt))
        return prompt

    def _question(self, conversation: Conversation, options: Sequence[str]) -> Question:
        prompt, begun = self.tokens.question(conversation, options)
        # The choice is read off the last position of the prompt and its opening.
        room(self.model, len(prompt) + len(begun.opening) - 1)
        return Question(tuple(prompt), begun)


def use_threads(count: int) -> None:
    """Let torch compute on ``count`` cores; 0 takes all that this process may run on.

    OpenMP's idle threads spin by default, and on a small or shared machine they take the time of
    the one that works. ``OMP_WAIT_POLICY=passive`` ends that, but only if it is in the environment
    before torch is imported: the command line sets it, this function cannot.
    """
    torch.set_num_threads(count or len(os.sched_getaffinity(0)))


def load(
    path: str | Path, dtype: str = "auto", device: str = "auto", offline: bool = False
) -> tuple[Any, Any]:
    """The model, with dropout off, and its tokenizer.

    ``dtype`` is "float32", "bfloat16" or "auto": bfloat16 if the checkpoint is stored so and the
    device multiplies it natively, else float32. ``device`` "auto" takes a CUDA device if there is
    one. ``offline`` takes only what is on this machine. Raises ModelError in one line, also for a
    weight that is no finite number.
    """
    if dtype != "auto" and dtype not in _DTYPES:
        raise SettingsError(f"unknown dtype {dtype!r}; use auto, float32 or bfloat16")
    spec = ModelSpec.parse(path)
    name, revision = spec.checkpoint()
    chosen_device = device_of(device)
    no_hub = spec.kind == "hub" and not offline and hub_problem()
    source: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": False,
        "local_files_only": offline or bool(no_hub),
    }
    transformers.utils.logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(name, **source)
        _check_kind(path, config)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            dtype=resolve(dtype, config, chosen_device),
            use_safetensors=True,
            output_loading_info=True,
            **source,
        )
        tokenizer = AutoTokenizer.from_pretrained(name, **source)
    except ModelError:
        raise
    except Exception as error:  # tokenizers raises it bare for a broken file
        if no_hub and isinstance(error, OSError):
            raise ModelError(f"{path} is not on this machine, and {no_hub}") from None
        if offline and spec.kind == "hub" and isinstance(error, OSError):
            raise ModelError(f"{path} is not on this machine yet; a run downloads it") from None
        reason = str(error).strip().split("\n")[0][:200]
        raise ModelError(f"{path}: cannot load it as a causal language model: {reason}") from error
    model, info = loaded
    if info["missing_keys"]:
        missing = ", ".join(sorted(info["missing_keys"])[:3])
        raise ModelError(f"{path}: weights are missing ({missing}); save the model again")
    _check_vocabulary(path, model, tokenizer)
    if name := broken_weight(model):
        raise ModelError(
            f"{path}: a weight in {name} is no finite number: the file is damaged, or a training"
            " went wrong; fetch or make the model again"
        )
    if chosen_device.type == "cpu" and _head_width(config) < WIDE:
        # With narrow heads and short answers, attention written out makes a third more tokens. With
        # wide ones it makes half as many after 900 tokens: it copies keys that heads share.
        model.set_attn_implementation("eager")
    return model.to(chosen_device).eval(), tokenizer


def _head_width(config: Any) -> int:
    config = config.get_text_config()
    width: int | None = getattr(config, "head_dim", None)
    return width or int(config.hidden_size // config.num_attention_heads)


def tokens_of(path: str | Path) -> tuple[ChatTokens, int]:
    """A model's tokens and its context, without its weights: they tell whether a row fits.

    For a model that has been loaded on this machine before.
    """
    name, revision = ModelSpec.parse(path).checkpoint()
    config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
    return ChatTokens(tokenizer), context_in(config)


def broken_weight(model: Any) -> str:
    """The name of the first tensor that holds a NaN or an infinity; "" if all are sound.

    A sum tells, and takes 0.3 s for 1.5 billion weights in bfloat16 on two cores; ``isfinite`` on
    each of them took 17 s. Only a sum that ran over has to be looked at again.
    """
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not weight.sum().isfinite() and not weight.isfinite().all():
                return str(name)
    return ""


def _check_kind(path: str | Path, config: Any) -> None:
    kind = (config.architectures or [""])[0]
    if kind.endswith("ForSequenceClassification"):
        raise ModelError(f"{path}: {kind} cannot speak; name a causal language model")


def _check_vocabulary(path: str | Path, model: Any, tokenizer: Any) -> None:
    """A pad or end token that was added without an embedding would fail deep inside a batch."""
    rows = model.get_input_embeddings().num_embeddings
    for name in ("pad_token", "eos_token", "bos_token"):
        number = getattr(tokenizer, f"{name}_id")
        if number is not None and number >= rows:
            raise ModelError(
                f"{path}: its tokenizer's {name} is id {number}, and the model embeds {rows} ids;"
                f" call model.resize_token_embeddings({len(tokenizer)}), and save it again"
            )


def resolve(dtype: str, config: Any, device: torch.device) -> torch.dtype:
    """The dtype of a setting. "auto": bfloat16 if the weights are and the device is fast at it."""
    if dtype != "auto":
        return _DTYPES[dtype]
    native = has_fast_bf16(device)
    return torch.bfloat16 if native and config.dtype == torch.bfloat16 else torch.float32
