"""Published safety test sets, known by their columns: XSTest, HarmBench, AdvBench, StrongREJECT.

A request that deserves a refusal is of the kind "harmful". XSTest's safe prompts only look unsafe;
they are "borderline", and refusing them is over-refusal. Categories are kept. The sets themselves
are not shipped. Not covered: behaviours that need an image or a document beside them.
"""

from collections.abc import Callable

from constitutional_ai.data.rows import Columns, Format, PromptRow, conversation, text
from constitutional_ai.records import user


def detect(row: Columns) -> Format | None:
    """The set that a row's columns belong to; None for any other row."""
    columns = set(row)
    if {"prompt", "type", "focus"} <= columns:
        return Format("XSTest", _xstest)
    if "prompt" in columns:
        return None
    return next((Format(name, read) for name, needed, read in _SETS if needed <= columns), None)


def _xstest(row: Columns) -> PromptRow:
    """``label`` is safe or unsafe. Older files have none; their unsafe types are "contrast_…"."""
    category = text(row["type"], "type")
    label = text(row.get("label"), "label") or (
        "unsafe" if category.startswith("contrast") else "safe"
    )
    if label not in ("safe", "unsafe"):
        raise ValueError(f"label: expected safe or unsafe, got {label!r}")
    kind = "borderline" if label == "safe" else "harmful"
    return PromptRow(conversation(row["prompt"]), kind, category)


def _harmbench(row: Columns) -> PromptRow:
    """A contextual behaviour is asked as HarmBench asks it: context, a rule, then the request."""
    context, behaviour = (text(row.get(name), name) for name in ("ContextString", "Behavior"))
    asked = f"{context}\n\n---\n\n{behaviour}" if context.strip() else behaviour
    functional = text(row.get("FunctionalCategory"), "FunctionalCategory")
    category = text(row["SemanticCategory"], "SemanticCategory")
    if functional and functional != category and functional != "standard":
        category = f"{category} ({functional})"
    return PromptRow(conversation([user(asked)] if behaviour.strip() else ""), "harmful", category)


def _harmful(request: str, category: str = "") -> Callable[[Columns], PromptRow]:
    """A reader of rows that are all requests to decline, from these two columns."""

    def read(row: Columns) -> PromptRow:
        named = text(row[category], category) if category else ""
        return PromptRow(conversation(row[request]), "harmful", named)

    return read


# Name, columns that tell it, and how a row is read.
_SETS: tuple[tuple[str, set[str], Callable[[Columns], PromptRow]], ...] = (
    ("HarmBench", {"Behavior", "SemanticCategory"}, _harmbench),
    (
        "AdvBench (HarmBench's columns)",
        {"Behavior", "Category", "BehaviorID"},
        _harmful("Behavior", "Category"),
    ),
    ("AdvBench", {"goal", "target"}, _harmful("goal")),
    ("StrongREJECT", {"forbidden_prompt", "category"}, _harmful("forbidden_prompt", "category")),
)
