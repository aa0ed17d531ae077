"""Which principles a request is about, so that nobody criticises hate speech for weapons.

A principle for red-team prompts alone stands for one kind of harm. All of these are listed to the
judge in one question, "Which of these does the request come closest to?", with "none of them" as
the last choice, in both orders of the list; the list comes first, so that all requests share it. A
principle fits if its share of the probability is more than an even one. Principles for every prompt
set fit every request.
"""

import random
from collections.abc import Sequence
from string import ascii_uppercase

from constitutional_ai import prompts as templates
from constitutional_ai.engines.base import Engine
from constitutional_ai.judge.judge import nonce
from constitutional_ai.judge.replies import Unread, option_shares
from constitutional_ai.principles import Constitution, Principle, weighted_sample
from constitutional_ai.records import Prompt, content_hash


def kinds_of_harm(constitution: Constitution) -> list[Principle]:
    """The critics' principles that are meant for red-team prompts alone; 25 at most are asked."""
    usable = constitution.usable("critique", "red-team")
    return [one for one in usable if one.prompts == ("red-team",)][: len(ascii_uppercase) - 1]


def fitting(
    engine: Engine, prompts: Sequence[Prompt], constitution: Constitution, seed: int
) -> list[dict[str, float] | Unread]:
    """For each prompt the share of every kind of harm, by the principle's name; in order.

    Shares and that of "none of them" sum to 1. Raises NoLogprobs where the engine has none.
    """
    kinds = kinds_of_harm(constitution)
    if not kinds:
        return [{} for _ in prompts]
    listed = [kinds, kinds[::-1]]
    letters = ascii_uppercase[: len(kinds) + 1]
    asked = [
        templates.which_harm([kind.text for kind in order], prompt.prompt, _fence(prompt, seed))
        for order in listed
        for prompt in prompts
    ]
    replies = option_shares(engine, asked, tuple(letters))
    first, second = replies[: len(prompts)], replies[len(prompts) :]
    return [_shares(kinds, one, other) for one, other in zip(first, second, strict=True)]


def _fence(prompt: Prompt, seed: int) -> str:
    return nonce(seed, "fitting", *(turn["content"] for turn in prompt.prompt))


def _shares(
    kinds: Sequence[Principle], one: list[float] | Unread, other: list[float] | Unread
) -> dict[str, float] | Unread:
    if isinstance(one, Unread):
        return one
    if isinstance(other, Unread):
        return other
    names = [kind.name for kind in kinds]
    backwards = dict(zip(reversed(names), other, strict=False))
    return {name: (share + backwards[name]) / 2 for name, share in zip(names, one, strict=False)}


def draw(constitution: Constitution, shares: dict[str, float] | Unread, *seed: object) -> Principle:
    """A principle for a critique, by weight among those that fit; all may be drawn if unread."""
    pool = constitution.usable("critique", "red-team")
    if isinstance(shares, dict):
        even = 1 / (len(shares) + 1)
        pool = [one for one in pool if shares.get(one.name, 1.0) > even] or pool
    return weighted_sample(pool, 1, random.Random(content_hash(*seed)))[0]
