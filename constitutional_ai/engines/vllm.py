"""vLLM in this process: for one machine with a GPU, where many answers or labels are wanted.

Prompts are encoded here, as for the local engine, so that no control token can come from data, and
vLLM sees ids alone. Log-probabilities are asked for the options' own tokens, by their ids, so none
is missing for being unlikely. On a GPU vLLM sets memory aside when it starts: it is for
stages that ask, such as ``revise`` and ``label``; where a model trains beside it, lower
``vllm.gpu_memory``. Not covered: live weights, so PPO draws with the local engine.
"""

import math
import os
import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from constitutional_ai.engines.base import Completion, Own, Sampling, read_each, refuse_long
from constitutional_ai.engines.local import resolve
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.engines.spelling import Begun
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.errors import ModelError
from constitutional_ai.machine import device_of
from constitutional_ai.records import Conversation
from constitutional_ai.settings import VllmSettings


class VllmEngine:
    """A folder, a hub id (``hub/id@revision``) or ``lab:s``, in vLLM.

    ``dtype`` is as for LocalEngine. Raises ModelError where vLLM is not installed, or cannot load
    the model.
    """

    def __init__(
        self, path: str, dtype: str = "auto", settings: VllmSettings | None = None
    ) -> None:
        self.name = f"vllm:{path}"
        self.llm, tokenizer = _load(path, dtype, settings or VllmSettings())
        self.tokens = ChatTokens(tokenizer)
        self._context = int(self.llm.llm_engine.model_config.max_model_len)

    def close(self) -> None:
        """End vLLM's own process, and with it what it holds of the GPU's memory."""
        self.llm.llm_engine.engine_core.shutdown()

    @property
    def own(self) -> Own:
        """As vLLM reads it from the model's generation_config.json."""
        default = self.llm.get_default_sampling_params()
        return Own(default.temperature, default.top_p)

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion for each conversation, in order; each row draws from a seed of its own.

        A prompt that fills the context alone, or cannot be spelt, fails.
        """
        from vllm import SamplingParams

        sampling = self.own.fill(sampling)
        prompts, failed = read_each(
            conversations, lambda turns: self._checked(self.tokens.prompt(turns))
        )
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=min(sampling.max_new_tokens, self._context - len(prompt)),
                seed=random.Random(f"{sampling.seed}/{row}").getrandbits(31),
                stop_token_ids=[self.tokens.end_id],
                detokenize=False,
            )
            for row, prompt in prompts.items()
        ]
        outputs = self._run(list(prompts.values()), params)
        answers = {row: list(out.token_ids) for row, out in zip(prompts, outputs, strict=True)}
        return [
            Completion("", 0, False, failed=failed[row], unfit=True)
            if row in failed
            else Completion(
                self.tokens.text(answers[row]), len(answers[row]), self.tokens.ended(answers[row])
            )
            for row in range(len(conversations))
        ]

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float]]:
        """Natural log of each option's probability, over the spellings that a reply may begin with.

        One request of a token a question; one more for each token with which all options begin. A
        prompt that does not fit has NaN for every option. Raises ValueError for options that do not
        differ before one of them ends.
        """
        from vllm import SamplingParams

        def read(turns: Conversation) -> tuple[list[int], Begun]:
            prompt, begun = self.tokens.question(turns, options)
            self._checked([*prompt, *begun.opening])
            return prompt, begun

        questions, _ = read_each(conversations, read)
        asked = [
            (prompt, of, k) for prompt, of in questions.values() for k in range(len(of.places))
        ]
        params = [
            SamplingParams(max_tokens=1, logprob_token_ids=of.tokens(k), detokenize=False)
            for _, of, k in asked
        ]
        outputs = self._run([[*prompt, *of.opening[:k]] for prompt, of, k in asked], params)
        found = (
            {i: output.logprobs[0][i].logprob for i in of.tokens(k)}
            for output, (_, of, k) in zip(outputs, asked, strict=True)
        )
        scores = [[math.nan] * len(options) for _ in conversations]
        for row, (_, of) in questions.items():
            scores[row] = of.logprobs([next(found) for _ in of.places])
        return scores

    def _run(self, prompts: Sequence[list[int]], params: Sequence[Any]) -> list[Any]:
        if not prompts:
            return []
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self.llm.generate(asked, list(params), use_tqdm=False)
        return [output.outputs[0] for output in outputs]

    def _checked(self, prompt: list[int]) -> list[int]:
        refuse_long(len(prompt), self._context)
        return prompt


def _load(path: str, dtype: str, settings: VllmSettings) -> tuple[Any, Any]:
    """vLLM's engine and the model's tokenizer."""
    on_gpu = torch.cuda.is_available()
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # it reports to its makers otherwise
    if not on_gpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GB; its default is too much here
    try:
        from vllm import LLM
    except ImportError as error:
        raise ModelError(
            f"vllm:{path}: vLLM cannot be imported ({error}); pip install"
            " 'constitutional-ai[vllm]', or serve the model and name it http://HOST:PORT/v1#MODEL"
        ) from None
    name, revision = ModelSpec.parse(path).checkpoint()
    more: dict[str, Any] = {"gpu_memory_utilization": settings.gpu_memory} if on_gpu else {}
    if settings.max_model_len:
        more["max_model_len"] = settings.max_model_len
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=False)
        llm = LLM(
            model=name,
            revision=revision,
            tokenizer_revision=revision,
            dtype=resolve(dtype, config, device_of("auto")),
            load_format="safetensors",
            trust_remote_code=False,
            enforce_eager=not on_gpu,  # on a CPU compiling costs more than it brings
            **more,
        )
    except Exception as error:  # whatever vLLM, transformers or the tokenizer raise
        reason = str(error).strip().split("\n")[0][:200]
        raise ModelError(f"vllm:{path}: cannot be loaded: {reason}") from error
    return llm, tokenizer
