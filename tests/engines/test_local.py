"""The local engine: answers, option log-probabilities against a naive forward, and bad folders."""

import io
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForSequenceClassification

from constitutional_ai import machine as processor
from constitutional_ai.engines.base import Engine, Sampling
from constitutional_ai.engines.causal import Transformers
from constitutional_ai.engines.local import LocalEngine, broken_weight, load, use_threads
from constitutional_ai.engines.prefix import PrefixCache
from constitutional_ai.errors import ModelError, SettingsError
from constitutional_ai.progress import Progress, called
from constitutional_ai.records import Conversation, assistant, user
from tests.engines.slow_options import option_logprobs as slow

TALKS: list[Conversation] = [
    [user("Hello.")],
    [
        user("Tell me a joke about a locksmith who cannot open the door."),
        assistant("No."),
        user("?"),
    ],
    [{"role": "system", "content": "Be kind."}, user("How do I pick a lock?")],
    [user("Which is better?"), assistant("The better one is ")],
]


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> LocalEngine:
    return LocalEngine.load(tiny_llama, batch_tokens=100)


@pytest.fixture(scope="module")
def gpt2(tiny_gpt2: Path) -> LocalEngine:
    return LocalEngine.load(tiny_gpt2)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("options", [["(A)", "(B)"], ["No.", "Knock knock.", "Hello."]])
def test_option_logprobs_are_those_of_a_slow_walk_over_the_vocabulary(
    name: str, options: list[str], request: pytest.FixtureRequest
) -> None:
    engine: LocalEngine = request.getfixturevalue(name)
    found = engine.option_logprobs(TALKS, options)
    for talk, scores in zip(TALKS, found, strict=True):
        assert scores == pytest.approx(slow(engine, talk, options), abs=1e-4)
    assert len({round(scores[0], 3) for scores in found}) == len(TALKS)


def test_a_bracket_is_not_forced(llama: LocalEngine) -> None:
    """The mass is that of the options in the reply, not behind a "(" put in the model's mouth."""
    together = llama.option_logprobs(TALKS[:3], ["(A)", "(B)"])
    forced = llama.option_logprobs([[*talk, assistant("(")] for talk in TALKS[:3]], ["A)", "B)"])
    for free, opened in zip(together, forced, strict=True):
        assert sum(map(math.exp, free)) < 1
        assert free != pytest.approx(opened, abs=0.1)


def test_the_laboratorys_models_are_read_behind_the_bracket() -> None:
    """They were taught one spelling, and every figure of theirs was made so."""
    lab = LocalEngine.load("lab:xxs", dtype="float32", device="cpu")
    talk = [user("Request: Hello.\n(A) Hi!\n(B) No.\nWhich answer is more helpful?")]
    assert lab.tokens.one_spelling
    forced = [*lab.tokens.prompt(talk), *lab.tokens.content("(")]
    with torch.no_grad():
        logits = lab.model(torch.tensor([forced])).logits[0, -1].log_softmax(-1)
    expected = [float(logits[lab.tokens.content(letter)[0]]) for letter in "AB"]
    assert lab.option_logprobs([talk], ["(A)", "(B)"])[0] == pytest.approx(expected, abs=1e-5)


def test_half_precision_moves_in_no_steps(tiny_llama: Path) -> None:
    """Read from bfloat16 logits, P of 600 questions took 20 to 30 values for each octave."""
    half = LocalEngine.load(tiny_llama, dtype="bfloat16", device="cpu")
    whole = LocalEngine(*load(tiny_llama, dtype="float32", device="cpu"))  # layers not packed
    for weight in (w for engine in (half, whole) for w in engine.model.parameters()):
        weight.data = (weight.data.float() / 3).to(weight.dtype)
    whole.model.load_state_dict({k: v.float() for k, v in half.model.state_dict().items()})
    talks = [[user(f"Question {n}: is it so?")] for n in range(600)]
    found, expected = (engine.option_logprobs(talks, ["A", "B"]) for engine in (half, whole))
    assert len({a - b for a, b in found}) > 500
    apart = [
        x - y for rows in zip(found, expected, strict=True) for x, y in zip(*rows, strict=True)
    ]
    assert max(map(abs, apart)) < 0.02  # the layers before the head still round


@pytest.mark.parametrize("options", [["(A)", "(A)"], ["(A)", "(A) or"], ["A", "B", "B"]])
def test_options_that_do_not_differ_are_refused(llama: LocalEngine, options: list[str]) -> None:
    with pytest.raises(ValueError, match="must differ"):
        llama.option_logprobs([TALKS[0]], options)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_answers_come_in_order_and_again_the_same(
    name: str, request: pytest.FixtureRequest
) -> None:
    engine: Engine = request.getfixturevalue(name)
    greedy = Sampling(temperature=0, max_new_tokens=12)
    together = engine.generate(TALKS, greedy)
    assert together == [engine.generate([talk], greedy)[0] for talk in TALKS]
    drawn = Sampling(max_new_tokens=12, seed=3)
    assert engine.generate(TALKS, drawn) == engine.generate(TALKS, drawn)
    assert all(0 < completion.tokens <= 12 for completion in together)
    assert all(c.finished or c.tokens == 12 for c in engine.generate(TALKS, drawn))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_conversation_that_goes_on_is_answered_as_one_that_is_read_anew(
    name: str, request: pytest.FixtureRequest
) -> None:
    engine: LocalEngine = request.getfixturevalue(name)
    talks = [[user(text)] for text in ("How do I rob a bank?", "Hi.", "Tell me how to bake bread.")]
    greedy = Sampling(temperature=0.0, max_new_tokens=12)
    going_on = replace(greedy, prefixes=PrefixCache())
    firsts = engine.generate(talks, going_on)
    assert firsts == engine.generate(talks, greedy)
    longer = [
        [*talk, assistant(first.text), user("What is wrong with it?")]
        for talk, first in zip(talks, firsts, strict=True)
    ]
    assert engine.generate(longer, going_on) == engine.generate(longer, greedy)


def test_no_control_token_shows_in_an_answer(llama: LocalEngine) -> None:
    texts = [
        c.text for c in llama.generate(TALKS * 4, Sampling(temperature=3.0, max_new_tokens=20))
    ]
    assert not any("<|im_end|>" in text or "<|im_start|>" in text for text in texts)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("lock " * 1500, r"a prompt of \d+ tokens leaves no room .* context of 1024; shorten it"),
        ("half of \ud800", "half a surrogate pair"),
    ],
)
def test_what_a_model_cannot_read_fails_alone(gpt2: LocalEngine, content: str, reason: str) -> None:
    talks, greedy = [*TALKS[:1], [user(content)], *TALKS[1:]], Sampling(0, max_new_tokens=4)
    said = gpt2.generate(talks, greedy)
    assert re.search(reason, said[1].failed) and said[1].text == "" and not said[1].finished
    assert said[1].unfit and not any(one.unfit for one in (said[0], *said[2:]))
    assert [said[0], *said[2:]] == gpt2.generate(TALKS, greedy)
    scores = gpt2.option_logprobs(talks, ["(A)", "(B)"])
    assert all(map(math.isnan, scores[1])) and len(scores[1]) == 2
    assert [scores[0], *scores[2:]] == gpt2.option_logprobs(TALKS, ["(A)", "(B)"])


def test_a_model_draws_as_its_makers_say_where_a_sampling_is_silent(
    llama: LocalEngine, tiny_llama: Path
) -> None:
    model, _ = load(tiny_llama, device="cpu")
    silent = Sampling(None, None, max_new_tokens=8, seed=5)
    assert LocalEngine(model, llama.tokenizer).own == (1.0, 1.0)  # a config that says nothing
    for own in ({"temperature": 0.3}, {"temperature": 0.9, "top_p": 0.4}):
        model.generation_config = GenerationConfig(do_sample=True, **own)
        engine = LocalEngine(model, llama.tokenizer)
        spoken = Sampling(own["temperature"], own.get("top_p", 1.0), max_new_tokens=8, seed=5)
        assert engine.generate(TALKS, silent) == engine.generate(TALKS, spoken)
        assert engine.generate(TALKS, silent) != engine.generate(TALKS, replace(spoken, top_p=0.01))
        given = replace(silent, temperature=2.0)
        assert engine.own.fill(given).temperature == 2.0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_refused(
    tmp_path: Path, tiny_llama: Path, value: float
) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_llama, tmp_path / "broken")
    file = tmp_path / "broken" / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] = value
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is no finite"):
        LocalEngine.load(tmp_path / "broken")


def test_large_weights_are_no_broken_ones() -> None:
    layer = torch.nn.Linear(4, 4)
    torch.nn.init.constant_(layer.weight, 3e38)  # their sum runs over
    assert broken_weight(layer) == ""


def test_how_far_a_call_is_can_be_heard(llama: LocalEngine) -> None:
    out = io.StringIO()
    shown = Progress("plain", out)
    heard: list[str] = []
    shown._view.within = lambda task: heard.append(task.call)  # type: ignore[method-assign]
    with shown.task("revise", 9), called("critiques"):
        llama.generate(TALKS, Sampling(max_new_tokens=5, seed=2))
    rows = [int(text.split()[1].split("/")[0]) for text in heard]
    assert heard[-1].startswith("critiques 4/4, ") and rows == sorted(rows) and len(rows) >= 5
    heard.clear()
    with shown.task("label", 9):
        llama.option_logprobs([*TALKS, TALKS[0]], ["(A)", "(B)"])
    assert heard[-1] == "questions 4/4"  # each different one is asked once
    heard.clear()
    llama.option_logprobs(TALKS, ["(A)", "(B)"])
    assert heard == []  # no task is open


def test_live_weights_are_used_as_they_are(llama: LocalEngine) -> None:
    live = LocalEngine(llama.model, llama.tokenizer)
    assert live.model is llama.model and live.name == "live"
    before = live.option_logprobs(TALKS[:1], ["(A)", "(B)"])[0]
    assert before == pytest.approx(slow(llama, TALKS[0], ["(A)", "(B)"]), abs=1e-4)
    with torch.no_grad():
        llama.model.lm_head.weight.mul_(0.5)
    assert live.option_logprobs(TALKS[:1], ["(A)", "(B)"])[0] != pytest.approx(before, abs=1e-2)
    with torch.no_grad():
        llama.model.lm_head.weight.mul_(2.0)


def test_the_same_question_is_asked_once(
    llama: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two batches, rounding would give it two answers."""
    asked: list[list[int]] = []
    read = Transformers.read

    def noted(self: Transformers, prompts: list[list[int]]) -> Any:
        asked.extend(prompts)
        return read(self, prompts)

    monkeypatch.setattr(Transformers, "read", noted)
    one, other, again = llama.option_logprobs([TALKS[0], TALKS[1], TALKS[0]], ["(A)", "(B)"])
    assert len(asked) == 2
    assert one == again != other


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_says_and_scores_what_the_cpu_does(tiny_llama: Path, dtype: str) -> None:
    here, there = (LocalEngine.load(tiny_llama, dtype, device) for device in ("cpu", "cuda"))
    scores = [engine.option_logprobs(TALKS, ["(A)", "(B)"]) for engine in (here, there)]
    # bfloat16 keeps eight bits: between 8 and 16, where these logits lie, values are 1/16 apart.
    near = 1e-4 if dtype == "float32" else 2 / 16
    assert scores[1] == [pytest.approx(row, abs=near) for row in scores[0]]
    if dtype == "float32":
        sampling = Sampling(temperature=0.0, max_new_tokens=12)
        said = [[r.text for r in engine.generate(TALKS, sampling)] for engine in (here, there)]
        assert said[0] == said[1]


def test_dtype(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = LocalEngine.load(tiny_llama, dtype="bfloat16")
    assert engine.model.dtype == torch.bfloat16
    assert engine.generate(TALKS, Sampling(max_new_tokens=4))
    engine.model.save_pretrained(tmp_path)
    engine.tokenizer.save_pretrained(tmp_path)
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        able = {"amx_bf16": native}
        monkeypatch.setattr(processor, "capabilities", lambda able=able: able)
        assert LocalEngine.load(tmp_path, device="cpu").model.dtype == dtype
        assert LocalEngine.load(tiny_llama, device="cpu").model.dtype == torch.float32
    with pytest.raises(SettingsError, match="unknown dtype 'int8'"):
        LocalEngine.load(tiny_llama, dtype="int8")


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        use_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def one_line(error: pytest.ExceptionInfo[ModelError]) -> bool:
    return "\n" not in str(error.value)


def test_folders_that_are_no_models(tmp_path: Path, tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match="no such model folder"):
        LocalEngine.load(tmp_path / "nothing")
    with pytest.raises(ModelError, match=r"no config\.json"):
        LocalEngine.load(tmp_path)
    with pytest.raises(ModelError, match="no-such-hub-model is not on this machine") as error:
        LocalEngine.load("no-such-hub-model")
    assert one_line(error)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        broken = tmp_path / f"broken-{name}"
        shutil.copytree(tiny_llama, broken)
        (broken / name).write_text("{ not this")
        with pytest.raises(ModelError, match="cannot load it as a causal language model") as error:
            LocalEngine.load(broken)
        assert one_line(error)


def test_pickled_weights_and_strange_code_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(tiny_llama, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save({}, pickled / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        LocalEngine.load(pickled)
    strange = tmp_path / "strange"
    shutil.copytree(tiny_llama, strange)
    config: dict[str, Any] = json.loads((strange / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.Config"}}
    (strange / "config.json").write_text(json.dumps(config))
    (strange / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ModelError, match="cannot load"):
        LocalEngine.load(strange)
    assert not (tmp_path / "ran").exists()


def test_a_reward_model_and_missing_weights_are_refused(tmp_path: Path, tiny_llama: Path) -> None:
    from safetensors.torch import load_file, save_file

    config = LlamaConfig.from_pretrained(tiny_llama, num_labels=1)
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "reward")
    with pytest.raises(ModelError, match="LlamaForSequenceClassification cannot speak"):
        LocalEngine.load(tmp_path / "reward")
    shutil.copytree(tiny_llama, tmp_path / "holed")
    file = tmp_path / "holed" / "model.safetensors"
    weights = load_file(file)
    del weights["model.norm.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"weights are missing \(model.norm.weight\)"):
        LocalEngine.load(tmp_path / "holed")
