"""Where principles disagree: who is heard, by rank and weight."""

import pytest

from constitutional_ai.errors import ConstitutionError
from constitutional_ai.judge.resolve import resolve
from constitutional_ai.principles import Constitution, Principle


def ranked(**ranks: dict[str, object]) -> Constitution:
    made = [Principle.model_validate({"name": n, "text": "t", **r}) for n, r in ranks.items()]
    return Constitution(name="c", version="1", principles=tuple(made))


@pytest.mark.parametrize(
    ("ranks", "by_principle", "p", "decided_by"),
    [
        # without ranks: the mean by weight, agreement or not
        ({"a": {"weight": 3}, "b": {}}, {"a": 0.9, "b": 0.1}, 0.7, ("a", "b")),
        # ranks change nothing while principles agree
        ({"a": {"priority": 1}, "b": {}}, {"a": 0.6, "b": 1.0}, 0.8, ("a", "b")),
        # 1 before 2, and both before those without one
        ({"a": {"priority": 2}, "b": {"priority": 1}}, {"a": 1.0, "b": 0.3}, 0.3, ("b",)),
        ({"a": {"weight": 99}, "b": {"priority": 7}}, {"a": 1.0, "b": 0.3}, 0.3, ("b",)),
        # hard before every priority
        ({"a": {"priority": 1}, "b": {"hard": True}}, {"a": 1.0, "b": 0.3}, 0.3, ("b",)),
        # the first rank has no opinion, so the next decides
        (
            {"a": {"priority": 1}, "b": {"priority": 2}, "c": {}},
            {"a": 0.55, "b": 0.2, "c": 0.9},
            0.2,
            ("b",),
        ),
        # two of one rank are averaged; where they cancel, the next rank decides
        (
            {"a": {"hard": True}, "b": {"hard": True}, "c": {"priority": 1}},
            {"a": 1.0, "b": 0.0, "c": 0.1},
            0.1,
            ("c",),
        ),
        # nobody has an opinion
        ({"a": {"priority": 1}, "b": {}}, {"a": 0.45, "b": 0.55}, 0.5, ("a", "b")),
    ],
)
def test_disagreement_is_settled_by_rank(
    ranks: dict[str, dict[str, object]],
    by_principle: dict[str, float],
    p: float,
    decided_by: tuple[str, ...],
) -> None:
    found = resolve(by_principle, ranked(**ranks))
    assert found.p == pytest.approx(p)
    assert found.decided_by == decided_by


def test_resolving_nothing_or_a_stranger_is_refused() -> None:
    with pytest.raises(ValueError, match="no principle has judged"):
        resolve({}, ranked(a={}))
    with pytest.raises(ConstitutionError, match="no principle named 'x'"):
        resolve({"x": 0.5}, ranked(a={}))
