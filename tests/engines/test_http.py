"""The HTTP engine against a server that breaks in every way, and one that can do less."""

import asyncio
import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from constitutional_ai.engines import open_engine
from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.client import FIRST_WAIT, retry_after
from constitutional_ai.engines.http import UNSEEN, HttpEngine, key_for, read_options
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.errors import ModelError, NoLogprobs, ServerGone, SettingsError
from constitutional_ai.prompts import OPTIONS
from constitutional_ai.records import Conversation, assistant, user
from constitutional_ai.settings import HttpSettings, Settings
from tests.engines.faulty_server import BRACKET, FAULTS, MODEL, FaultyServer, answer, faulty_server

# Time enough for a true reply on a busy machine; what hangs costs all of it.
QUICK = HttpSettings(timeout=2.0, retries=8, max_wait=0.05, patience=30.0, concurrency=16)
SLOW = ("hang", "drip")
SAMPLING = Sampling(max_new_tokens=16, seed=3)


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with faulty_server() as running:
        yield running


def engine(server: FaultyServer, **changes: object) -> HttpEngine:
    return HttpEngine(f"{server.url}#{MODEL}", QUICK.model_copy(update=changes))


def rows(count: int) -> list[str]:
    """Messages that meet no fault, one, or two in a row; what costs time, less often."""
    quick = ["", *(fault for fault in FAULTS if fault not in SLOW)]
    firsts = [*quick * 5, *SLOW]
    pairs = [(firsts[n % len(firsts)], quick[n // 13 % 13]) for n in range(count)]
    return [f"row {n} meets {', '.join(filter(None, pair))}" for n, pair in enumerate(pairs)]


def talks(messages: list[str]) -> list[Conversation]:
    return [[user(message)] for message in messages]


COUNTS = [200, pytest.param(1000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("count", COUNTS)
def test_requests_through_every_fault(server: FaultyServer, count: int) -> None:
    """Nothing lost, nothing doubled, nothing given to another row."""
    messages = rows(count)
    replies = engine(server).generate(talks(messages), SAMPLING)
    assert [reply.failed for reply in replies] == [""] * count
    assert [reply.text for reply in replies] == [answer(message) for message in messages]
    assert all(reply.finished and reply.tokens == 5 for reply in replies)
    assert all(server.served[message] for message in messages)
    # Twice only where a slow machine let a true reply come too late.
    assert server.served.total() < 1.02 * count + 10  # six of them find out what it can
    met = Counter(fault for m in messages for fault in m.partition(" meets ")[2].split(", "))
    assert min(met[fault] for fault in FAULTS) >= 0.01 * count and met["reset"] > 0.1 * count
    for message in messages:
        faults = [fault for fault in message.partition(" meets ")[2].split(", ") if fault]
        # A reply without log-probabilities lacks nothing here.
        assert server.seen[message] > [*faults, "no logprobs"].index("no logprobs")


def test_no_more_at_once_than_set(server: FaultyServer) -> None:
    asking = engine(server, concurrency=7)
    server.delay = 0.01
    asking.generate(talks([f"row {n}" for n in range(60)]), SAMPLING)
    assert 1 < server.most <= 7


@pytest.mark.parametrize("count", COUNTS)
def test_log_probabilities_through_every_fault(server: FaultyServer, count: int) -> None:
    scores = engine(server).option_logprobs(talks(rows(count)), OPTIONS)
    for n, (a, b) in enumerate(scores):
        assert math.exp(a) == pytest.approx(BRACKET * (n + 1) / 2000, rel=1e-4)
        assert math.exp(b) == pytest.approx(BRACKET * (0.99 - (n + 1) / 2000), rel=1e-4)


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in ("no logprobs", "429")])
def test_a_row_that_always_fails_is_told_and_the_others_come(
    server: FaultyServer, fault: str
) -> None:
    messages = [f"row 1 meets {fault} always", "row 2", "row 3"]
    asking = engine(server, retries=2, patience=0.2, timeout=0.2)
    bad, *good = asking.generate(talks(messages), SAMPLING)
    assert bad.failed and bad.text == "" and not bad.finished
    assert [reply.text for reply in good] == [answer(message) for message in messages[1:]]
    scores = asking.option_logprobs(talks(messages), OPTIONS)
    lost = fault != "no text"  # which lacks nothing where scores are asked for
    assert [all(map(math.isnan, row)) for row in scores] == [lost, False, False]


def test_what_a_lost_row_is_told(server: FaultyServer) -> None:
    faults = ["500", "hang", "html", "empty", "many", "400"]
    asking = engine(server, retries=1, timeout=0.2)
    replies = asking.generate(talks([f"row 1 meets {f} always" for f in faults]), SAMPLING)
    assert [reply.failed for reply in replies] == [
        "HTTP 500: out of order, 2 times",
        "no whole reply within 0.2 s, 2 times",
        "HTTP 200 with a body that is no JSON (text/html), 2 times",
        "a reply with 0 choices, asked for one, 2 times",
        "a reply with 2 choices, asked for one, 2 times",
        "HTTP 400: out of order",  # a refusal is not tried again
    ]
    assert server.seen["row 1 meets 400 always"] == 1


def test_without_log_probabilities_a_row_is_nan(server: FaultyServer) -> None:
    asking = engine(server, retries=1)
    bad, good = asking.option_logprobs(talks(["row 1 meets no logprobs always", "row 2"]), OPTIONS)
    assert all(map(math.isnan, bad)) and all(map(math.isfinite, good))


def test_later_is_for_all_and_does_not_count_as_a_try(server: FaultyServer) -> None:
    message = "row 1 meets " + ", ".join(["429"] * 20)
    (reply,) = engine(server, retries=0).generate(talks([message]), SAMPLING)
    assert reply.text == answer(message)
    assert server.seen[message] == 21


def test_nobody_asks_before_the_time_that_the_server_named(server: FaultyServer) -> None:
    """One reply that names half a second holds all rows of the engine back."""
    server.retry_after = 0.5
    asking = engine(server, max_wait=5.0, concurrency=4)
    started = time.monotonic()
    asking.generate(talks(["row 1 meets 429", "row 2 meets 429"]), SAMPLING)
    assert 0.5 <= time.monotonic() - started < 5
    server.retry_after = 60.0
    started = time.monotonic()
    engine(server).generate(talks(["row 3 meets 429"]), SAMPLING)  # max_wait bounds what it names
    assert time.monotonic() - started < 10


def test_rows_that_failed_together_try_again_at_different_times(server: FaultyServer) -> None:
    client = engine(server, max_wait=8.0).client
    waits = [[client._wait(tries) for _ in range(200)] for tries in (1, 3, 30)]
    for drawn, bound in zip(waits, (FIRST_WAIT, 4 * FIRST_WAIT, 8.0), strict=True):
        assert len(set(drawn)) > 150
        assert 0 <= min(drawn) < 0.1 * bound and 0.9 * bound < max(drawn) <= bound


def test_a_server_that_goes_away_stops_the_call_and_is_waited_for(
    server: FaultyServer, caplog: pytest.LogCaptureFixture
) -> None:
    asking = engine(server, retries=1, patience=0.3)
    server.down = True
    with pytest.raises(ServerGone, match=r"start it, and the same command goes on"):
        asking.generate(talks(["row 1", "row 2"]), SAMPLING)
    server.down = False
    with faulty_server() as other:
        port = other.url
    asking.client.url = port  # nobody listens there now
    began = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(ServerGone):
        asking.generate(talks(["row 1"]), SAMPLING)
    assert 0.3 <= time.monotonic() - began < 5
    assert "waiting: no connection" in caplog.text
    with pytest.raises(ModelError, match="is it running"):
        HttpEngine(f"{port}#{MODEL}", QUICK)


def test_a_restart_is_waited_out(server: FaultyServer) -> None:
    asking = engine(server)
    server.down = True
    threading.Timer(0.4, lambda: setattr(server, "down", False)).start()
    asking.client.settings = QUICK.model_copy(update={"retries": 100})
    assert asking.generate(talks(["row 1"]), SAMPLING)[0].text == answer("row 1")


def test_what_is_sent(server: FaultyServer) -> None:
    asking = engine(server, extra='{"top_k": 5}')
    server.bodies.clear()
    talk = [user("row 1"), assistant("So")]
    asking.generate([talk, talk], Sampling(temperature=0.5, top_p=0.9, max_new_tokens=7, seed=2))
    one, two = sorted(server.bodies, key=lambda body: body["seed"])
    assert one.pop("seed") != two.pop("seed")  # or two draws of one prompt would be the same
    assert (
        one
        == two
        == {
            "model": MODEL,
            "messages": talk,
            "continue_final_message": True,
            "add_generation_prompt": False,
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 5,
        }
    )
    seeds = sorted(body.get("seed", 0) for body in server.bodies)
    server.bodies.clear()
    asking.generate([talk, talk], Sampling(seed=2))
    assert seeds == [0, 0] and len({body["seed"] for body in server.bodies}) == 2
    server.bodies.clear()
    asking.generate([talk], Sampling(None, None))
    assert not {"temperature", "top_p"} & server.bodies.pop().keys()  # the server's own


def test_the_options_are_asked_for_by_their_ids(server: FaultyServer) -> None:
    asking = engine(server)
    server.bodies.clear()
    asking.option_logprobs([[user("row 1")]], OPTIONS)
    free, opened = sorted(server.bodies, key=lambda body: len(body["messages"]))
    assert free["logprob_token_ids"] == [ord("A"), ord("B"), ord("(")]
    assert free["messages"] == [user("row 1")]
    assert opened["logprob_token_ids"] == [ord("A"), ord("B")]
    assert opened["messages"] == [user("row 1"), assistant("(")]
    assert {(body["max_tokens"], body["temperature"]) for body in (free, opened)} == {(1, 1.0)}


@pytest.mark.parametrize(
    ("able", "found"),
    [
        ({}, (20, True, True)),
        ({"chosen": False}, (20, True, False)),
        ({"continues": False}, (20, False, True)),
        ({"logprobs": False}, (0, True, False)),
    ],
)
def test_abilities_are_found_out(able: dict[str, bool], found: tuple[int, bool, bool]) -> None:
    with faulty_server(**able) as server:
        can = engine(server).can
    assert (can.likeliest, can.continues, can.chosen) == found


@pytest.mark.parametrize("able", [{"chosen": False}, {"continues": False}])
def test_without_ids_the_likeliest_tokens_are_read(able: dict[str, bool]) -> None:
    with faulty_server(**able) as server:
        ((a, b),) = engine(server).option_logprobs(talks(["row 399"]), OPTIONS)
    assert (math.exp(a), math.exp(b)) == pytest.approx((BRACKET * 0.2, BRACKET * 0.79))


def test_a_server_that_ignores_logprobs_is_told_not_believed() -> None:
    with faulty_server(logprobs=False) as server, pytest.raises(NoLogprobs, match="vote"):
        engine(server).option_logprobs(talks(["row 1"]), OPTIONS)


def test_a_server_that_cannot_go_on_is_not_asked_to() -> None:
    with faulty_server(continues=False) as server:
        asking = engine(server)
        with pytest.raises(ModelError, match="continue_final_message"):
            asking.generate([[user("row 1"), assistant("So")]], SAMPLING)


def step(token: str, **places: float) -> dict[str, object]:
    top = [{"token": name, "logprob": math.log(p)} for name, p in places.items()]
    return {"token": token, "logprob": math.log(places[token]), "top_logprobs": top}


def reading(*steps: dict[str, object], reason: str = "length") -> list[float]:
    choice = {"logprobs": {"content": list(steps)}, "finish_reason": reason}
    return [math.exp(value) for value in read_options(choice, OPTIONS)]


def test_options_are_read_where_they_first_differ() -> None:
    merged = {"token": "(A", "logprob": math.log(0.6)}
    other = [
        {"token": t, "logprob": math.log(p)} for t, p in ((" (B", 0.2), ("(B", 0.1), ("I", 0.05))
    ]
    assert reading({**merged, "top_logprobs": other}) == pytest.approx([0.6, 0.3])
    spaced = step(" ", **{" ": 0.9, "x": 0.1})
    letter = step("(B", **{"(A": 0.25, "(B": 0.5})
    assert reading(spaced, letter) == pytest.approx([0.9 * 0.25, 0.9 * 0.5])
    assert reading(step("A", A=0.7, B=0.2), reason="stop") == pytest.approx([0.7, 0.2])


def test_every_spelling_among_the_likeliest_counts() -> None:
    first = step("(", **{"(": 0.5, "A": 0.2, " B": 0.1, "**": 0.1, '"A': 0.05})
    assert reading(first, step("B", A=0.4, B=0.6)) == pytest.approx([0.2 + 0.05 + 0.2, 0.1 + 0.3])
    words = {"logprobs": {"content": [step("Yes", **{"Yes": 0.6, "yes": 0.2, " No": 0.1})]}}
    assert [math.exp(v) for v in read_options(words, ["Yes", "No"])] == pytest.approx([0.8, 0.1])


def test_what_is_not_an_option_is_no_answer() -> None:
    choice = {"logprobs": {"content": [step("I", I=0.9, A=0.1)]}, "finish_reason": "length"}
    assert read_options(choice, OPTIONS)[0] == pytest.approx(math.log(0.1))  # too little, not none
    prose = [step("A", A=0.9, B=0.1), step(" better", **{" better": 1.0})]
    assert read_options({"logprobs": {"content": prose}}, OPTIONS) == [UNSEEN, UNSEEN]
    # Behind an open "(" the same reply is an option, whatever follows it.
    behind = read_options({"logprobs": {"content": prose}}, ["A)", "B)"], going_on=True)
    assert [math.exp(value) for value in behind] == pytest.approx([0.9, 0.1])


def test_an_option_that_is_not_seen_gets_a_bound_from_above() -> None:
    steps = step("(", **{"(": 1.0}), step("A", A=0.9, x=0.06)
    assert reading(*steps) == pytest.approx([0.9, 0.04])  # what is left is less than any seen
    assert reading(step("(", **{"(": 1.0}), step("A", A=0.5, x=0.01)) == pytest.approx([0.5, 0.01])


def test_keys_come_from_the_environment_and_go_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "sk-very-secret"
    monkeypatch.setenv("SOME_KEY", secret)
    with faulty_server(key=secret) as server, caplog.at_level(logging.DEBUG):
        host = server.url.split("/")[2]
        asking = engine(server, keys=(f"{host}=SOME_KEY",))
        assert asking.generate(talks(["row 1"]), SAMPLING)[0].text == answer("row 1")
        with pytest.raises(ModelError, match="wants a key"):
            engine(server, keys=("another.host=SOME_KEY",))
        server.key = "changed"
        with pytest.raises(ModelError) as caught:
            asking.generate(talks(["row 1"]), SAMPLING)
    assert "wrong key Bearer ***" in str(caught.value)
    assert secret not in caplog.text + str(caught.value) + repr(asking.client.settings)


def test_a_key_that_a_server_echoes_comes_into_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "sk-very-secret"
    monkeypatch.setenv("SOME_KEY", secret)
    with faulty_server(key=secret, says=f"you sent {secret}!") as server:
        asking = engine(server, keys=(f"{server.url.split('/')[2]}=SOME_KEY",))
        (reply,) = asking.generate(talks(["row 1"]), SAMPLING)
    assert reply.text == "you sent ***!"


@pytest.mark.parametrize(
    ("front", "message"),
    [
        ("html", "answers with text/html in place of JSON: .* usually ends with /v1"),
        ("redirect", "redirects to https://elsewhere/v1/models; name the address there"),
    ],
)
def test_what_is_no_model_server(front: str, message: str) -> None:
    with faulty_server(front=front) as server, pytest.raises(ModelError, match=message):
        engine(server)
    with faulty_server() as server:
        asking = engine(server)
        server.front = "redirect"
        with pytest.raises(ModelError, match="redirects to"):
            asking.generate(talks(["row 1"]), SAMPLING)


def test_a_key_must_be_named_and_be_there() -> None:
    assert key_for("http://h:1/v1", ["other=HOME"]) == ""
    assert key_for("http://h:1/v1", ["h=HOME"]) == key_for("http://h:1/v1", ["h:1=HOME"]) != ""
    with pytest.raises(SettingsError, match="NOT_THERE_AT_ALL, for h, is not set"):
        key_for("http://h:1/v1", ["h=NOT_THERE_AT_ALL"])
    with pytest.raises(ValueError, match="not the key"):
        HttpSettings(keys=("h=sk-123",))
    with pytest.raises(ValueError, match="JSON object"):
        HttpSettings(extra="[1]")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("http://", "not a server's address"),
        ("https://name:word@host/v1#m", "http.keys"),
        ("https://host/v1?key=word#m", "http.keys"),
    ],
)
def test_bad_addresses(spec: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        ModelSpec.parse(spec)
    assert "word" not in str(caught.value).replace("password", "")


def test_the_model_must_be_served(server: FaultyServer) -> None:
    assert HttpEngine(server.url, QUICK).model == MODEL  # the only one it has
    with pytest.raises(ModelError, match=f"does not serve 'other'; it serves {MODEL}"):
        HttpEngine(f"{server.url}#other", QUICK)
    with pytest.raises(ModelError, match="ends with /v1"):
        HttpEngine(f"{server.url}/chat#{MODEL}", QUICK)


def test_in_a_running_loop(server: FaultyServer) -> None:
    """As in a notebook."""
    asking = engine(server)

    async def cell() -> str:
        return asking.generate(talks(["row 1"]), SAMPLING)[0].text

    assert asyncio.run(cell()) == answer("row 1")


def test_open_engine_takes_what_the_spec_names(server: FaultyServer) -> None:
    found = open_engine(f"{server.url}#{MODEL}", Settings(http=QUICK))
    assert isinstance(found, HttpEngine)
    assert found.name == f"{server.url}#{MODEL}"
    assert found.generate([], SAMPLING) == [] and found.option_logprobs([], OPTIONS) == []


def test_retry_after() -> None:
    assert retry_after("2") == 2.0
    assert retry_after("-1") == 0.0
    assert retry_after("") is retry_after("soon") is None
    assert (
        58
        < (
            retry_after(time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 60)))
            or 0
        )
        <= 60
    )
