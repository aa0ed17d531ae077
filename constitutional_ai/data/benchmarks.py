"""Published safety test sets, told by their columns: XSTest, HarmBench, AdvBench, StrongREJECT.

Their prompts get the kinds that ``cai evaluate`` measures under: requests that deserve a refusal
are "harmful"; XSTest's safe prompts, which only look unsafe, are "borderline", where a refusal is
over-refusal. Categories are kept. The sets themselves are not shipped.
"""

from constitutional_ai.data.rows import Columns, Format, Parsed, conversation, text
from constitutional_ai.records import user

_HARMBENCH = {"Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID"}
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


def _xstest(row: Columns) -> Parsed:
    """``label`` is safe or unsafe; files before it was added name unsafe types "contrast_…"."""
    category = text(row["type"], "type")
    label = text(row.get("label"), "label") or (
        "unsafe" if category.startswith("contrast") else "safe"
    )
    if label not in ("safe", "unsafe"):
        raise ValueError(f"label: expected safe or unsafe, got {label!r}")
    kind = "borderline" if label == "safe" else "harmful"
    return Parsed(conversation(row["prompt"]), kind, category)


def _harmbench(row: Columns) -> Parsed:
    """A contextual behaviour is asked as HarmBench asks it: context, a rule, then the request."""
    context, behaviour = (text(row.get(name), name) for name in ("ContextString", "Behavior"))
    asked = f"{context}\n\n---\n\n{behaviour}" if context.strip() else behaviour
    functional = text(row["FunctionalCategory"], "FunctionalCategory")
    category = text(row["SemanticCategory"], "SemanticCategory")
    if functional and functional != category and functional != "standard":
        category = f"{category} ({functional})"
    return Parsed(conversation([user(asked)] if behaviour.strip() else ""), "harmful", category)


def _advbench(row: Columns) -> Parsed:
    return Parsed(conversation(row["Behavior"]), "harmful", text(row["Category"], "Category"))


def _advbench_original(row: Columns) -> Parsed:
    return Parsed(conversation(row["goal"]), "harmful")


def _strongreject(row: Columns) -> Parsed:
    return Parsed(
        conversation(row["forbidden_prompt"]), "harmful", text(row["category"], "category")
    )
