"""What a red-team campaign is made of: which models, requests, families and judges."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from constitutional_ai.data import requests
from constitutional_ai.data.requests import SPLITS, Request
from constitutional_ai.engines.ask import sampling_of
from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.principles import Constitution
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.redteam import families
from constitutional_ai.redteam.families import Family
from constitutional_ai.redteam.world import lab
from constitutional_ai.settings import RedteamSettings
from constitutional_ai.store.run_folder import Fingerprint


class Plan(RedteamSettings):
    """All that decides a campaign's rows. ``models`` maps a label to a model's spec."""

    models: dict[str, str] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)

    @property
    def in_lab(self) -> bool:
        """Whether the requests are the laboratory's."""
        return self.prompts in SPLITS

    def resolved(self) -> "Plan":
        """With every default filled in."""
        here = self.in_lab
        judge = self.judge or ("lab:s" if here else next(iter(self.models.values())))
        return self.model_copy(
            update={
                "judge": judge,
                "critic": self.critic or judge,
                "attacker": self.attacker or ("lab" if here else judge),
                "constitution": self.constitution or ("lab" if here else "red-team"),
                "max_new_tokens": self.max_new_tokens or (64 if here else 512),
                "temperature": 1.0 if here and self.temperature is None else self.temperature,
            }
        )

    def sampling(self, seed: int) -> Sampling:
        """How the targets answer."""
        return sampling_of(self, seed)


class Item(NamedTuple):
    """One row to make."""

    model: str
    family: Family
    request: Request
    id: str


def fingerprint(plan: Plan, constitution: Constitution) -> Fingerprint:
    """What the rows depend on, by name."""
    specs = [*plan.models.values(), plan.judge, plan.critic, plan.attacker]
    depends: Fingerprint = plan.model_dump(mode="json")
    depends |= {
        f"{spec} files": ModelSpec.parse(spec).identity() for spec in specs if spec != "lab"
    }
    for name in ("prompts", "benign", "examples"):
        depends[f"{name} content"] = requests.identity(getattr(plan, name))
    return depends | {"constitution content": constitution.hash}


def table(plan: Plan) -> dict[str, Family]:
    """The families that there are for these prompts."""
    if plan.in_lab:
        return families.laboratory(lab().examples(40, plan.seed))
    return families.general(requests.load_examples(plan.examples) if plan.examples else [])


def items_of(plan: Plan) -> list[Item]:
    """Every row of a campaign, model after model. Searches go for harmful requests only."""
    asked = requests.load_requests(
        plan.prompts, plan.benign, plan.requests, plan.benign_requests, plan.seed
    )
    chosen = families.chosen(plan.families, table(plan), plan.steps)
    return [
        Item(label, family, request, content_hash(request.id, family.name, label, plan.seed))
        for label in plan.models
        for family in chosen
        for request in asked
        if family.kind != "search" or request.kind == "harmful"
    ]


def disguised(item: Item, seed: int) -> Conversation:
    """The attack on one request: the same for every model."""
    rng = random.Random(content_hash("attack", seed, item.family.name, item.request.id))
    return item.family.apply(item.request.prompt, rng)


def plan_in(rows: Path, table: RedteamSettings, given: Mapping[str, Any]) -> Plan:
    """The plan of a folder of rows: what is given, else the run file's, else as it was begun."""
    path = rows / "settings.json"
    held = json.loads(path.read_text(encoding="utf-8"))["fingerprint"] if path.exists() else {}
    before = {name: value for name, value in held.items() if name in Plan.model_fields}
    said = table.model_dump(exclude_unset=True)
    return Plan.model_validate({"models": {"lab:s": "lab:s"}, **before, **said, **given})
