"""Rows in the shapes that trainers take: conversational, with our own columns beside them.

Columns are flat, with the same names and types in every row. A mapping such as principle → p would
have other keys in every row, and readers of JSONL would refuse it, so it becomes two lists.
"""

from typing import Any

from constitutional_ai.exports.finished import Demonstration
from constitutional_ai.exports.paragraphs import shown_model
from constitutional_ai.records import Preference, assistant


def prompt_completion(row: Demonstration) -> dict[str, Any]:
    """SFT on the answer alone: TRL's completion-only loss."""
    completion = [assistant(row.answer)]
    return {"prompt": row.prompt, "completion": completion, **_made_by(row)}


def messages(row: Demonstration) -> dict[str, Any]:
    """SFT as one conversation that ends with the answer."""
    return {"messages": [*row.prompt, assistant(row.answer)], **_made_by(row)}


def preference(row: Preference) -> dict[str, Any]:
    """``chosen`` and ``rejected`` are the answers alone, ``prompt`` what comes before them."""
    return {
        "prompt": row.prompt,
        "chosen": row.chosen,
        "rejected": row.rejected,
        "p_chosen": row.p_chosen,
        "principles": list(row.by_principle),
        "p_by_principle": list(row.by_principle.values()),
        "prompt_set": row.set,
        "judge": shown_model(row.judge),
        "constitution": row.constitution,
        "id": row.id,
    }


def _made_by(row: Demonstration) -> dict[str, Any]:
    return {"source": row.source, "model": shown_model(row.model), "id": row.id}
