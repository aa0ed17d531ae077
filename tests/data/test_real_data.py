"""The published files themselves, where they are at hand: set CAI_DATA to their folder."""

import os
from pathlib import Path

import pytest

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.data.sources import read
from constitutional_ai.data.survey import survey

DATA = Path(os.environ.get("CAI_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no data in {DATA}")


@pytest.mark.parametrize(
    ("file", "format", "kinds", "categories"),
    [
        ("xstest/xstest_prompts.csv", "XSTest", {"borderline": 250, "harmful": 200}, 18),
        ("harmbench/harmbench_behaviors_text_test.csv", "HarmBench", {"harmful": 320}, 13),
        ("harmbench/harmbench_behaviors_text_val.csv", "HarmBench", {"harmful": 80}, 12),
        ("advbench/advbench_behaviors.csv", "AdvBench (HarmBench's columns)", {"harmful": 520}, 0),
        ("strongreject/strongreject_dataset.csv", "StrongREJECT", {"harmful": 313}, 6),
    ],
)
def test_a_published_set_is_read_whole(
    file: str, format: str, kinds: dict[str, int], categories: int
) -> None:
    found = survey(read(str(DATA / file)))
    assert found["format"] == format
    assert found["kinds"] == kinds
    assert found["prompts"] == sum(kinds.values())
    assert len(found["categories"]) == categories
    assert found["left_out"] == {}
    prompts = load_prompts(str(DATA / file), "red-team", 999, 0)
    assert len(prompts) == len({prompt.id for prompt in prompts}) == sum(kinds.values())


def test_hh_rlhf_has_the_oddities_that_are_known_of_it() -> None:
    source = str(DATA / "hh-rlhf" / "harmless-base-test-first1500.jsonl.gz")
    found = survey(read(source))
    assert (found["rows"], found["prompts"], found["pairs"]) == (1500, 1500, 1499)
    assert len(found["odd"]["empty chosen answer"]) == 4
    assert found["odd"]["different prompts: not comparable"] == [1255]
    assert found["multi_turn"] > 1000
    assert len(load_prompts(source, "red-team", 100, 0)) == 100
