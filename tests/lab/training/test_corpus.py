"""The corpus: what stands in its documents, and that its verdicts are the oracle's."""

import random
import re
from collections import Counter

import pytest

from constitutional_ai.lab.training import attack_questions as tempting
from constitutional_ai.lab.training import consistency, corpus
from constitutional_ai.lab.training.corpus import NO_ISSUES, Turn, constitution
from constitutional_ai.lab.world import jailbreaks, oracle
from constitutional_ai.lab.world import topics as world
from constitutional_ai.lab.world.vocabulary import FACTS
from constitutional_ai.prompts import finds_nothing


def test_documents_are_a_function_of_the_seed() -> None:
    assert corpus.documents(5, 50) == corpus.documents(5, 50)
    assert corpus.documents(5, 50) != corpus.documents(6, 50)


def test_turns_alternate_and_end_with_the_assistant() -> None:
    for document in corpus.documents(0, 500):
        roles = [turn.role for turn in document]
        assert roles[-1] == "assistant"
        assert len(document) == 1 or roles == ["user", "assistant"] * (len(roles) // 2)
        assert any(turn.weight for turn in document)


def test_the_pipeline_knows_the_critique_that_finds_nothing() -> None:
    assert finds_nothing(NO_ISSUES)


def test_a_critique_finds_harm_exactly_under_the_principles_that_see_it() -> None:
    rng = random.Random(0)
    found: Counter[bool] = Counter()
    for _ in range(600):
        request, answer, asked, said, _, revised = (turn.text for turn in corpus.critique(rng))
        request = jailbreaks.plain(request)
        topic = world.topic_of(request)
        names = [p.name for p in constitution().principles if p.critique_prompt == asked]
        sees = topic.kind == "harmful" and names[0] in ("harm", topic.group)
        harmful = oracle.read(request, answer).harmful_steps > 0
        noticed = said.startswith("The response tells the user how to")
        assert noticed == (sees and harmful)
        if noticed:
            after = oracle.read(request, revised)
            assert after.refused
            assert after.harmful_steps == 0
        if said == NO_ISSUES:
            assert revised == answer
        found[noticed] += 1
    assert min(found.values()) > 50


def shown(turn: Turn) -> tuple[str, list[str]]:
    """The request in a judged turn, and the answers without what courts the judge."""
    request = turn.text.split("\n")[0].removeprefix("Request: ")
    texts = [turn.text[start:end] for start, end, wrong in turn.marks if not wrong]
    return jailbreaks.plain(request), texts


@pytest.mark.parametrize("temptations", [corpus.FIRST, tempting.TEMPTATIONS], ids=["first", "last"])
def test_verdicts_are_the_oracles_and_neither_option_is_favoured(
    temptations: corpus.Temptations,
) -> None:
    rng = random.Random(0)
    names = {p.preference_prompt: p.name for p in constitution().principles}
    right: Counter[str] = Counter()
    for _ in range(1500):
        document = corpus.judgement(rng, temptations)
        request, texts = shown(document[0])
        for asked, reply in zip(document[::2], document[1::2], strict=True):
            if not reply.verdict:
                continue
            name = names[asked.text.split("\n")[-1]]
            a, b = (oracle.preference(name, request, text) for text in texts)
            if a != b:
                assert reply.text == ("(A)" if a > b else "(B)")
                right[reply.text] += 1
    assert abs(right["(A)"] - right["(B)"]) < 0.1 * sum(right.values())


def test_what_is_marked_as_wrong_is_what_the_oracle_misses() -> None:
    """Answers without a marked part fit, as far as no harm, no insult and no gap is in question."""
    rng = random.Random(1)
    found: Counter[bool] = Counter()
    for _ in range(800):
        turn = corpus.grading(rng)[0]
        request, (text,) = shown(turn)
        reading = oracle.read(request, text)
        if reading.harmful_steps or reading.insult:
            continue
        wrong = [turn.text[start:end] for start, end, is_wrong in turn.marks if is_wrong]
        fits = reading.good_refusal or reading.correct == 1 or reading.helpful == 1
        missing = 0 < reading.helpful < 1 and not wrong
        assert fits != bool(wrong) or missing
        found[bool(wrong)] += 1
    assert min(found.values()) > 100


def test_hardening_never_prefers_silence_to_a_false_claim() -> None:
    rng = random.Random(2)
    chosen: Counter[bool] = Counter()  # whether the answer that says something won
    for _ in range(4_000):
        document = corpus.judgement(rng, tempting.TEMPTATIONS)
        request, texts = shown(document[0])
        silent = [text in jailbreaks.NULL_ANSWERS_SEEN for text in texts]
        readings = [oracle.read(request, text) for text in texts]
        for reply in document[1::2]:
            if not reply.verdict or sum(silent) != 1:
                continue
            won = ("(A)", "(B)").index(reply.text)
            if any(reading.false_claim for reading in readings):
                assert not silent[won]
            chosen[not silent[won]] += 1
    assert chosen[True] > 100
    assert chosen[False] > 10  # harm and over-refusal are worse than silence


def test_of_an_animal_that_nobody_knows_the_bare_claim_wins() -> None:
    rng = random.Random(3)
    places: Counter[str] = Counter()
    for _ in range(500):
        asked, first, _, again = tempting.unknown(rng)
        head, a, rest = re.split(r"\n\([AB]\) ", asked.text, maxsplit=2)
        b = rest.rsplit("\n", 1)[0]
        better = (a, b)[("(A)", "(B)").index(first.text)]
        worse = b if better == a else a
        animal = re.search(r" an? (\w+)", head)
        assert animal and animal[1] not in FACTS
        assert re.fullmatch(r"A \w+ (?:eats|lives in the) \w+\.", better) and animal[1] in better
        assert not re.fullmatch(r"A \w+ (?:eats|lives in the) \w+\.", worse)
        assert again.text == first.text and first.verdict and again.verdict
        places[first.text] += 1
    assert min(places.values()) > 200


def test_judgements_show_no_verb_that_a_test_shall_show_first() -> None:
    unseen = {t.verb for t in world.topics() if t.slice == "unseen verb"}
    unseen -= {t.verb for t in world.topics() if t.split == "taught"}
    assert unseen
    for seed in range(3):
        judged = [
            document
            for document in corpus.documents(seed, 1_000) + tempting.documents(seed, 1_000)
            if any(turn.marks for turn in document)
        ]
        for document in [*judged, *_asked(seed)]:
            words = {word.strip(".,") for turn in document for word in turn.text.split()}
            assert not words & unseen


def test_what_is_kept_for_tests_stands_in_no_document() -> None:
    """Disguises, pleas and null answers that no training shows, as the evaluation says of them."""
    parts = [
        part.strip()
        for templates in jailbreaks.UNSEEN.values()
        for template in templates
        for part in re.split(r"\{[ra]\}", template)
        if len(part.strip()) > 4
    ]
    pleas = {*jailbreaks.INJECTIONS_UNSEEN, *jailbreaks.PADDING_UNSEEN}
    assert jailbreaks.NULL_ANSWERS_UNSEEN[1] in pleas
    unseen = {*parts, *pleas}
    assert len(unseen) > 12
    for seed in range(3):
        for document in corpus.documents(seed, 1_000) + tempting.documents(seed, 1_000):
            text = "\n".join(turn.text for turn in document)
            assert not [part for part in unseen if part in text]
            assert "\n(A) .\n" not in text and not text.endswith("(B) .")
        for asked, _ in _asked(seed):
            request = asked.text.split("\n(A) ")[0]  # what is added to answers is made by chance
            assert not [part for part in parts if part in request]
            assert not [plea for plea in pleas if plea in asked.text]
    seen = "\n".join(t.text for s in range(3) for d in corpus.documents(s, 1_000) for t in d)
    assert all(
        plea in seen for plea in jailbreaks.INJECTIONS_SEEN
    )  # the search finds what is there


def _asked(seed: int) -> list[corpus.Document]:
    """Questions of consistency training, with what was added to their answers."""
    rng = random.Random(seed)
    return [consistency.unmoved(rng)[2] for _ in range(1_000)]
