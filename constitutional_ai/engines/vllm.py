"""vLLM in this process: for one machine with a GPU, where many answers or labels are wanted.

Prompts are encoded here, as for the local engine, so that no control token can come from data, and
vLLM sees ids alone. Log-probabilities are asked for the options' own tokens, by their ids, so none
is missing for being unlikely. On a GPU vLLM sets memory aside when it starts: it is for
stages that ask, such as ``revise`` and ``label``; where a model trains beside it, lower
``vllm.gpu_memory``. Not covered: live weights, so PPO draws with the local engine.
"""

import os
import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from constitutional_ai.engines.base import Completion, Sampling
from constitutional_ai.engines.local import resolve
from constitutional_ai.engines.spec import ModelSpec
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

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion for each conversation, in order; each row draws from a seed of its own.

        Raises ModelError for a prompt that fills the context alone.
        """
        from vllm import SamplingParams

        prompts = [self._checked(self.tokens.prompt(turns)) for turns in conversations]
        params = [
            SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=min(sampling.max_new_tokens, self._context - len(prompt)),
                seed=random.Random(f"{sampling.seed}/{row}").getrandbits(31),
                stop_token_ids=[self.tokens.end_id],
                detokenize=False,
            )
            for row, prompt in enumerate(prompts)
        ]
        answers = [list(output.token_ids) for output in self._run(prompts, params)]
        return [
            Completion(self.tokens.text(ids), len(ids), self.tokens.ended(ids)) for ids in answers
        ]

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float]]:
        """Natural log of each option's probability, over the spellings that a reply may begin with.

        One request of a token a question; one more for each token with which all options begin.
        Raises ValueError for options that do not differ before one of them ends, ModelError for a
        prompt that fills the context.
        """
        from vllm import SamplingParams

        questions = [self.tokens.question(turns, options) for turns in conversations]
        asked = [(prompt, of, k) for prompt, of in questions for k in range(len(of.places))]
        prompts = [self._checked([*prompt, *of.opening[:k]]) for prompt, of, k in asked]
        params = [
            SamplingParams(max_tokens=1, logprob_token_ids=of.tokens(k), detokenize=False)
            for _, of, k in asked
        ]
        found = (
            {i: output.logprobs[0][i].logprob for i in of.tokens(k)}
            for output, (_, of, k) in zip(self._run(prompts, params), asked, strict=True)
        )
        return [of.logprobs([next(found) for _ in of.places]) for _, of in questions]

    def _run(self, prompts: Sequence[list[int]], params: Sequence[Any]) -> list[Any]:
        if not prompts:
            return []
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        outputs = self.llm.generate(asked, list(params), use_tqdm=False)
        return [output.outputs[0] for output in outputs]

    def _checked(self, prompt: list[int]) -> list[int]:
        if len(prompt) >= self._context:
            raise ModelError(
                f"a prompt of {len(prompt)} tokens leaves no room for an answer in the context of"
                f" {self._context}; shorten it, or raise vllm.max_model_len if the model allows"
            )
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
