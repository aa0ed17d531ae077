"""The world's topics and how they are split."""

import random

from constitutional_ai.lab.training import corpus
from constitutional_ai.lab.world import data, jailbreaks
from constitutional_ai.lab.world import topics as world
from constitutional_ai.lab.world.vocabulary import INSULTS_UNSEEN


def test_every_topic_has_one_place_and_no_two_share_a_request() -> None:
    topics = world.topics()
    assert len({(t.verb, t.noun) for t in topics}) == len(topics)
    assert {t.split for t in topics} == {"taught", "train", "test"}


def test_every_request_is_read_back_as_its_topic() -> None:
    rng = random.Random(0)
    for topic in world.topics():
        request = world.request(topic, rng)
        assert world.topic_of(request.text) == topic


def test_alignment_test_and_teaching_have_no_topic_in_common() -> None:
    train = {
        world.topic_of(p.prompt[0]["content"])
        for name in ("red-team", "helpful")
        for p in data.draw(name, 1000, seed=3)
    }
    counts = {"harmful": 300, "benign": 120, "borderline": 120, "facts": 120}
    tests = {world.topic_of(p.prompt[0]["content"]) for p in data.test(counts)}
    assert {t.split for t in train} == {"train"}
    assert {t.split for t in tests} == {"test"}
    assert not train & tests


def test_test_prompts_are_the_same_every_time_and_as_many_as_asked_for() -> None:
    counts = {"harmful": 30, "facts": 7}
    prompts = data.test(counts)
    assert prompts == data.test(counts)
    assert {k: sum(p.kind == k for p in prompts) for k in counts} == counts


def test_the_judge_critic_and_reviser_are_taught_on_taught_topics_only() -> None:
    rng = random.Random(1)
    for maker in (corpus.critique, corpus.direct_revision, corpus.judgement, corpus.grading):
        for _ in range(300):
            first = maker(rng)[0].text
            request = first.removeprefix("Request: ").split("\n")[0]
            assert world.topic_of(jailbreaks.plain(request)).split == "taught", first


def test_unseen_verbs_and_insults_stand_in_no_critique_or_judgement() -> None:
    rng = random.Random(2)
    verbs = {t.verb for t in world.topics() if t.slice == "unseen verb"}
    for _ in range(1500):
        for maker in (corpus.critique, corpus.judgement, corpus.grading):
            document = maker(rng)
            words = {w.strip(".,") for turn in document for w in turn.text.split()}
            assert not words & set(INSULTS_UNSEEN)
            if maker is corpus.judgement:  # random words may pad an answer; the request is clean
                head = document[0].text.split("\n")[0]
                words = {w.strip(".,?") for w in head.split()}
            assert not words & verbs
