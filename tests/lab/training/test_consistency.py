"""Consistency training: the start is asked about the plain pair, and its word is what is wanted."""

import math
import random
from collections import Counter
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
import torch

from constitutional_ai import machine, prompts
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.lab.training import batches, consistency, corpus, harden
from constitutional_ai.lab.training.batches import encode, make_corpus
from constitutional_ai.lab.world import topics as world
from constitutional_ai.lab.world.sizes import model_path
from constitutional_ai.records import user

FOLDER = model_path("lab:xxs")
MODEL, TOKENIZER = harden._read(FOLDER), harden._tokenizer(FOLDER)


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products, also where the machine has bfloat16: its rounding would hide differences."""
    monkeypatch.setattr(machine, "has_fast_bf16", lambda _: False)


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> consistency.Questions:
    monkeypatch.setattr(batches, "_CHUNK", 300)
    monkeypatch.setattr(consistency, "make_corpus", lambda *asked: make_corpus(*asked).first(180))
    with ThreadPool(1) as pool:
        return consistency.ask(MODEL, TOKENIZER, pool, 3, 1, tmp_path)


def test_what_is_wanted_is_what_the_judge_says_of_the_plain_pair(
    questions: consistency.Questions,
) -> None:
    """Against the engine that judges use, in both orders."""
    rng = random.Random("consistency 3")
    plain = [consistency.unmoved(rng)[0] for _ in range(20)]
    engine = LocalEngine.load("lab:xxs", dtype="float32")
    for document, wanted in zip(plain, questions.wanted.tolist(), strict=False):
        head, question = document[0].text.rsplit("\n", 1)
        request, rest = head.removeprefix("Request: ").split("\n(A) ")
        first, second = rest.split("\n(B) ")
        said = []
        for pair in ((first, second), (second, first)):
            asked = f"{prompts.compared([user(request)], *pair)}\n{question}"
            (a, b) = engine.option_logprobs([[user(asked)]], prompts.OPTIONS)[0]
            said.append(1 / (1 + math.exp(b - a)))
        assert wanted == pytest.approx((said[0] + 1 - said[1]) / 2, abs=1e-4)


def test_the_loss_is_the_cross_entropy_with_what_is_wanted(
    questions: consistency.Questions,
) -> None:
    rows = questions.order(0)[0][:3]
    with torch.no_grad():
        found = questions.loss(MODEL, rows).item()
    ends = questions.shown.ends
    by_hand = []
    for row in rows.tolist():
        ids = questions.shown.ids[ends[row - 1] if row else 0 : ends[row]].astype("int64")
        place = max(n for n, token in enumerate(ids) if token in questions.letters)
        with torch.no_grad():
            logits = MODEL(input_ids=torch.from_numpy(ids[:place])[None]).logits[0, -1]
        said = logits.log_softmax(-1)[list(questions.letters)]
        wanted = questions.wanted[row]
        by_hand.append(-(wanted * said[0] + (1 - wanted) * said[1]).item())
    assert found == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-3)


def test_learning_in_parts_adds_the_gradients_of_the_whole(
    questions: consistency.Questions,
) -> None:
    rows = questions.order(0)[0][:58]  # no three equal parts
    gradients = []
    for whole in (True, False):
        MODEL.zero_grad()
        if whole:
            (2.0 * questions.loss(MODEL, rows)).backward()
        else:
            questions.learn(MODEL, rows, 2.0)
        gradients.append(MODEL.lm_head.weight.grad.clone())
    MODEL.zero_grad()
    apart = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert apart < 1e-4


def test_questions_turn_round_and_only_add() -> None:
    rng = random.Random(4)
    added: Counter[str] = Counter()
    for _ in range(500):
        texts = [document[0].text for document in consistency.unmoved(rng)]
        (request, *plain), (_, *turned), (around, *shown) = map(_parts, texts)
        assert turned == plain[::-1]
        assert request.removeprefix("Request: ") in around
        assert all(old in new for old, new in zip(plain, shown, strict=True))
        changed = [old != new for old, new in zip(plain, shown, strict=True)]
        if request != around:
            assert not any(changed)
            added["behind turns" if "Human: " in around else "in a disguise"] += 1
        else:
            added[f"to {sum(changed)}"] += 1
    assert added.keys() == {"behind turns", "in a disguise", "to 0", "to 1", "to 2"}
    assert min(added.values()) > 25


def test_no_question_is_about_a_test_topic() -> None:
    """Nor does one show a verb that judges shall meet for the first time in a test."""
    rng = random.Random(5)
    tested = {(t.verb, t.noun) for topics in world.by_kind("test").values() for t in topics}
    seen = set()
    for _ in range(2_000):
        request = consistency._request(True, rng)
        assert request.topic.split == "train"
        assert request.topic.slice != "unseen verb"
        assert (request.topic.verb, request.topic.noun) not in tested
        seen.add(request.topic.kind)
    assert seen == set(corpus.JUDGED)


def test_every_question_has_one_letter() -> None:
    documents = [d for _ in range(50) for d in consistency.unmoved(random.Random(6))]
    found = encode(TOKENIZER, documents)
    assert found.letters.sum() == len(documents)


def _parts(text: str) -> list[str]:
    """The request and the two answers."""
    head, rest = text.rsplit("\n", 1)[0].split("\n(A) ", 1)
    return [head, *rest.rsplit("\n(B) ", 1)]
