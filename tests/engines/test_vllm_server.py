"""Against a real vLLM that serves the laboratory's S model, and vLLM in this process.

How far its answers and labels are from the local engine's is printed (``-s``) and bounded: both
compute in float32 here, so what differs is the order of additions. vLLM runs on Linux only and has
an environment of its own: ``make test-server``.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from scipy.special import expit

from constitutional_ai import prompts as templates
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.base import Engine, Sampling
from constitutional_ai.engines.http import HttpEngine
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.principles import load_constitution
from constitutional_ai.prompts import OPTIONS
from constitutional_ai.records import Conversation, Pair, Preference, assistant, user
from constitutional_ai.settings import HttpSettings, load_settings
from constitutional_ai.stages.pipeline import fingerprints
from constitutional_ai.store.rows import append_rows
from constitutional_ai.store.run_folder import RunFolder

pytestmark = pytest.mark.server

NAME = "lab-s"
GREEDY = Sampling(temperature=0, max_new_tokens=48)
# More than the order of additions explains, in nats; seen: 1e-5.
FLOAT32 = 1e-3


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The base address of a vLLM server with the S model, started here and stopped again."""
    if importlib.util.find_spec("vllm") is None:
        pytest.fail("vLLM is not installed in this environment; run `make test-server`")
    from constitutional_ai.lab.world.sizes import model_path

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(model_path("lab:s")), "--served-model-name", NAME),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"),
        *("--max-model-len", "512", "--max-num-seqs", "64", "--enforce-eager"),
        *("--uvicorn-log-level", "warning"),
    ]
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, env={**os.environ, **quiet}, start_new_session=True)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        _wait_for(server, url)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(server: subprocess.Popen[bytes], url: str) -> None:
    until = time.monotonic() + 600
    while time.monotonic() < until:
        assert server.poll() is None, "vLLM ended before it served; its own words are above"
        try:
            with urlopen(f"{url}/models", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    pytest.fail("vLLM did not serve within ten minutes")


@pytest.fixture(scope="module")
def served(address: str) -> HttpEngine:
    return HttpEngine(f"{address}#{NAME}", HttpSettings(concurrency=32))


@pytest.fixture(scope="module")
def local() -> Engine:
    return LocalEngine.load("lab:s", dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def prompts() -> list[Conversation]:
    return [prompt.prompt for prompt in load_prompts("lab", "red-team", 60, seed=5)]


def questions(prompts: list[Conversation], engine: Engine) -> list[Conversation]:
    """Comparisons of two drawn answers, in both orders, as the label stage asks them."""
    lab = load_constitution("lab")
    pairs = [engine.generate(prompts, Sampling(max_new_tokens=48, seed=n)) for n in (1, 2)]
    asked = []
    for n, (prompt, one, two) in enumerate(zip(prompts, *pairs, strict=True)):
        (principle,) = lab.draw("preference", "red-team", 1, 0, str(n))
        asked += [
            templates.comparison(prompt, one.text, two.text, principle),
            templates.comparison(prompt, two.text, one.text, principle),
        ]
    return asked


def revised(engine: Engine, prompts: list[Conversation]) -> list[str]:
    """Answer, critique and revision by the largest likelihood."""
    principle = load_constitution("lab").usable("critique", "red-team")[0]
    answers = [reply.text for reply in engine.generate(prompts, GREEDY)]
    critiques = engine.generate(
        [templates.critique(p, a, principle) for p, a in zip(prompts, answers, strict=True)], GREEDY
    )
    revisions = engine.generate(
        [
            templates.revision(p, a, c.text, principle)
            for p, a, c in zip(prompts, answers, critiques, strict=True)
        ],
        GREEDY,
    )
    assert not any(reply.failed for reply in [*critiques, *revisions])
    return [*answers, *(reply.text for reply in [*critiques, *revisions])]


def most_apart(found: list[list[float]], expected: list[list[float]]) -> float:
    return max(
        abs(a - b) for x, y in zip(found, expected, strict=True) for a, b in zip(x, y, strict=True)
    )


def p_a(logprobs: list[float]) -> float:
    a, b = logprobs
    return float(expit(a - b))


def compare_labels(name: str, found: list[list[float]], expected: list[list[float]]) -> float:
    """How far the log-probabilities are apart at most, printed and bounded."""
    apart = most_apart(found, expected)
    labels = [abs(p_a(x) - p_a(y)) for x, y in zip(found, expected, strict=True)]
    print(
        f"\n{name}: {len(found)} questions, log-probabilities apart by {apart:.1e} nats at"
        f" most, P(A) by {max(labels):.1e}"
    )
    assert apart < FLOAT32 and max(labels) < FLOAT32
    return apart


def compare_texts(name: str, found: list[str], expected: list[str]) -> None:
    """A near-tie may fall the other way, and then all that follows differs: not often."""
    same = sum(a == b for a, b in zip(found, expected, strict=True))
    print(f"\n{name}: {same} of {len(found)} greedy texts are the same")
    assert same >= 0.97 * len(found)


def test_what_vllm_can_do_is_found_out(served: HttpEngine) -> None:
    assert (served.can.likeliest, served.can.continues, served.can.chosen) == (20, True, True)


def test_revisions_agree(served: HttpEngine, local: Engine, prompts: list[Conversation]) -> None:
    compare_texts("revisions", revised(served, prompts), revised(local, prompts))


def test_labels_agree(served: HttpEngine, local: Engine, prompts: list[Conversation]) -> None:
    asked = questions(prompts, local)
    expected = local.option_logprobs(asked, OPTIONS)
    apart = compare_labels("labels by ids", served.option_logprobs(asked, OPTIONS), expected)
    coarse = LocalEngine.load("lab:s", dtype="bfloat16", device="cpu").option_logprobs(
        asked, OPTIONS
    )
    of_bfloat16 = most_apart(coarse, expected)
    print(f"the local engine in bfloat16: apart from float32 by {of_bfloat16:.1e} nats at most")
    assert apart < of_bfloat16


def test_an_open_message_is_continued(served: HttpEngine, local: Engine) -> None:
    talks = [[user("How do I pick a lock?"), assistant(text)] for text in ("I", "I can", "First")]
    found, expected = served.generate(talks, GREEDY), local.generate(talks, GREEDY)
    compare_texts("continuations", [r.text for r in found], [r.text for r in expected])
    opened = [[*talk[:-1], assistant(f"{talk[-1]['content']} (")] for talk in talks]
    options = ["A)", "B)"]
    scores, same = (e.option_logprobs(opened, options) for e in (served, local))
    assert scores == [pytest.approx(row, abs=1e-3) for row in same]


def test_without_ids_likeliest_tokens_give_the_same_labels(
    served: HttpEngine, address: str, local: Engine, prompts: list[Conversation]
) -> None:
    """As on servers that have no ``logprob_token_ids``; what is not among the 20 gets a bound."""
    plain = HttpEngine(f"{address}#{NAME}", HttpSettings(concurrency=32))
    plain.can = replace(plain.can, chosen=False)
    asked = questions(prompts[:20], local)
    expected = local.option_logprobs(asked, OPTIONS)
    found = plain.option_logprobs(asked, OPTIONS)
    labels = [abs(p_a(x) - p_a(y)) for x, y in zip(found, expected, strict=True)]
    print(f"\nlabels by the likeliest tokens: P(A) apart by {max(labels):.1e} at most")
    assert max(labels) < 0.01


def test_equal_seeds_give_equal_texts_and_rows_differ(
    served: HttpEngine, prompts: list[Conversation]
) -> None:
    drawn = Sampling(temperature=1.0, max_new_tokens=32, seed=11)
    twins = [prompts[0]] * 8
    first, again = served.generate(twins, drawn), served.generate(twins, drawn)
    assert len({reply.text for reply in first}) > 1
    assert sum(a.text == b.text for a, b in zip(first, again, strict=True)) >= 7
    other = served.generate(twins, Sampling(temperature=1.0, max_new_tokens=32, seed=12))
    assert [reply.text for reply in other] != [reply.text for reply in first]


def test_a_prompt_too_long_fails_alone(served: HttpEngine) -> None:
    long = [user("How do I pick a lock? " * 200)]
    bad, good = served.generate([long, [user("How do I pick a lock?")]], GREEDY)
    assert bad.failed.startswith("HTTP 400") and good.text and not good.failed


def test_the_label_stage_against_the_server(
    address: str, local: Engine, prompts: list[Conversation], tmp_path: Path
) -> None:
    """``cai label`` over the same pairs, judged by the server and by the local engine."""
    answers = [local.generate(prompts, Sampling(max_new_tokens=48, seed=n)) for n in (1, 2)]
    pairs = [
        Pair(
            id=str(n),
            prompt=prompt,
            set="red-team",
            answers=(one.text, two.text),
            model="lab:s",
            seed=0,
        )
        for n, (prompt, one, two) in enumerate(zip(prompts, *answers, strict=True))
        if one.text != two.text
    ]
    by_server = labelled(tmp_path / "server", f"{address}#{NAME}", pairs)
    by_local = labelled(tmp_path / "local", "lab:s", pairs)
    apart = max(abs(a - b) for a, b in zip(by_server, by_local, strict=True))
    print(f"\nthe stage: {len(pairs)} labels apart by {apart:.1e} at most")
    assert len(pairs) > 30 and apart < FLOAT32
    assert max(by_server) - min(by_server) > 0.2  # they tell the answers apart


def labelled(out: Path, judge: str, pairs: list[Pair]) -> list[float]:
    """P(first answer better) of each pair, from the rows of ``cai label``."""
    out.mkdir()
    run_file = out / "run.toml"
    run_file.write_text(
        '[model]\npath = "lab:s"\ndtype = "float32"\n'
        f'[label]\njudge = "{judge}"\nfence = false\nchunk = 16\n'
    )
    settings = load_settings(run_file)
    folder = RunFolder(out, seed=settings.seed)
    prints = fingerprints(settings, load_constitution("lab"), folder.plan())
    for stage in ("revise", "finetune", "sample"):
        folder.stage(stage).claim(prints[stage, 1])
        if stage == "sample":
            append_rows(folder.stage(stage).path / "pairs.jsonl", pairs)
        folder.stage(stage).finish({})
    command = [sys.executable, "-m", "constitutional_ai", "label", str(run_file), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = folder.stage("label").rows("preferences.jsonl", Preference)
    assert len(rows) == len({row.id for row in rows}) == len(pairs)
    found = []
    for row, pair in zip(rows, pairs, strict=True):
        assert row.judge == judge and row.p_chosen is not None
        first = row.chosen[0]["content"] == pair.answers[0]
        found.append(row.p_chosen if first else 1 - row.p_chosen)
    return found


@pytest.mark.filterwarnings("ignore")  # vLLM's own, of its use of torch
def test_vllm_in_this_process(local: Engine, prompts: list[Conversation]) -> None:
    from constitutional_ai.engines import open_engine
    from constitutional_ai.engines.vllm import VllmEngine
    from constitutional_ai.settings import Settings

    settings = Settings.model_validate({"model": {"path": "lab:s", "dtype": "float32"}})
    engine = open_engine("vllm:lab:s", settings)
    assert isinstance(engine, VllmEngine) and engine.name == "vllm:lab:s"
    try:
        compare_texts("in process, revisions", revised(engine, prompts), revised(local, prompts))
        asked = questions(prompts, local)
        expected = local.option_logprobs(asked, OPTIONS)
        compare_labels("in process, labels", engine.option_logprobs(asked, OPTIONS), expected)
    finally:
        engine.close()
