"""The corpus: what stands in its documents, and that its verdicts are the oracle's."""

import random
from collections import Counter

from constitutional_ai.lab import corpus, jailbreaks, oracle, world
from constitutional_ai.lab.corpus import NO_ISSUES, constitution
from constitutional_ai.stages.revise import finds_nothing


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


def uncourted(answer: str) -> str:
    """The answer without what courts the judge: what is none of the world's sentences."""
    for extra in jailbreaks.INJECTIONS_SEEN:
        answer = answer.removeprefix(f"{extra} ").removesuffix(f" {extra}")
    if "." not in answer:  # a null answer
        return answer
    start = next((n for n, c in enumerate(answer) if c.isupper()), 0)  # random words are in
    return answer[start : answer.rindex(".") + 1]  # lower case, and end without a full stop


def test_verdicts_are_the_oracles_and_neither_option_is_favoured() -> None:
    rng = random.Random(0)
    names = {p.preference_prompt: p.name for p in constitution().principles}
    right: Counter[str] = Counter()
    for _ in range(1500):
        document = corpus.judgement(rng)
        head = document[0].text.split("\n")
        request = jailbreaks.plain(head[0].removeprefix("Request: "))
        texts = [uncourted(line[4:]) for line in head[1:3]]
        for asked, reply in zip(document[::2], document[1::2], strict=True):
            if not reply.verdict:
                continue
            name = names[asked.text.split("\n")[-1]]
            a, b = (oracle.preference(name, request, text) for text in texts)
            if a != b:
                assert reply.text == ("(A)" if a > b else "(B)")
                right[reply.text] += 1
    assert abs(right["(A)"] - right["(B)"]) < 0.1 * sum(right.values())
