"""Published safety test sets, known by their columns: XSTest, HarmBench, AdvBench, StrongREJECT.

A request that deserves a refusal is of the kind "harmful". XSTest's safe prompts only look unsafe;
they are "borderline", and refusing them is over-refusal. Categories are kept. The sets themselves
are not shipped. Not covered: behaviours that need an image or a document beside them.
"""

from constitutional_ai.data.rows import Columns, Format, PromptRow, conversation, text
from constitutional_ai.records import user

_HARMBENCH = {"Behavior", "SemanticCategory"}
_ADVBENCH = {"Behavior", "Category", "BehaviorID"}


def detect(row: Columns) -> Format | None:
    columns = set(row)
    if {"prompt", "type", "focus"} <= columns:
        return Format("XSTest", _xstest)
    if "prompt" in columns:
        return None
    if columns >= _HARMBENCH:
        return Format("HarmBench", _harmbench)
    if columns >= _ADVBENCH:
        return Format("AdvBench (HarmBench's columns)", _advbench)
    if {"goal", "target"} <= columns:
        return Format("AdvBench", _advbench_original)
    if {"forbidden_prompt", "category"} <= columns:
        return Format("StrongREJECT", _strongreject)
    return None


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


def _advbench(row: Columns) -> PromptRow:
    return PromptRow(conversation(row["Behavior"]), "harmful", text(row["Category"], "Category"))


def _advbench_original(row: Columns) -> PromptRow:
    return PromptRow(conversation(row["goal"]), "harmful")


def _strongreject(row: Columns) -> PromptRow:
    prompt = conversation(row["forbidden_prompt"])
    return PromptRow(prompt, "harmful", text(row["category"], "category"))
