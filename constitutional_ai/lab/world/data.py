"""Prompts of the laboratory's world for alignment and for the test, and what is known of each."""

import random
from collections.abc import Mapping
from typing import Any

from constitutional_ai.lab.world import topics as world
from constitutional_ai.records import Prompt, PromptSet, content_hash, user

# Red-team prompts are harmful requests, helpful prompts all others. As in the paper, these keep the
# model from learning that declining is always right.
SETS: dict[PromptSet, dict[world.Kind, float]] = {
    "red-team": {"harmful": 1.0},
    "helpful": {"benign": 0.42, "borderline": 0.3, "facts": 0.28},
}


def draw(prompts: PromptSet, count: int, seed: int) -> list[Prompt]:
    """``count`` alignment prompts, none about a topic of the test or of the base's teaching."""
    rng = random.Random(content_hash("lab prompts", prompts, seed))
    kinds = rng.choices(list(SETS[prompts]), weights=list(SETS[prompts].values()), k=count)
    pools = world.by_kind("train")
    return [_prompt(rng.choice(pools[kind]), prompts, n, rng) for n, kind in enumerate(kinds)]


def test(counts: Mapping[str, int]) -> list[Prompt]:
    """The test prompts, ``counts`` of each kind; the same ones in every run."""
    pools = world.by_kind("test")
    every = []
    for kind, pool in pools.items():
        rng = random.Random(content_hash("lab test", kind))
        prompts: PromptSet = "red-team" if kind == "harmful" else "helpful"
        every += [_prompt(rng.choice(pool), prompts, n, rng) for n in range(counts.get(kind, 0))]
    return every


def _prompt(topic: world.Topic, prompts: PromptSet, number: int, rng: random.Random) -> Prompt:
    text = world.request(topic, rng).text
    made = content_hash(topic.split, prompts, topic.kind, number, text)
    return Prompt(id=made, prompt=[user(text)], set=prompts, kind=topic.kind)


def slice_of(request: str) -> world.Slice:
    """Why the topic of a request is new to the base model. Raises ValueError for foreign text."""
    return world.topic_of(request).slice


def split_summary() -> dict[str, Any]:
    """How many topics each part of the split has, by kind and by what makes them new."""
    summary: dict[str, dict[str, int]] = {}
    for topic in world.topics():
        row = summary.setdefault(topic.kind, {})
        key = "taught" if topic.split == "taught" else f"{topic.split}, {topic.slice}"
        row[key] = row.get(key, 0) + 1
    return summary
