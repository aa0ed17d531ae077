"""What a source holds, in figures: ``cai data``.

Prompts are duplicates if all their turns have the same words (``rows.normalised``). For the
overlap with another source the last user turn is enough, if it has a few words, so that a
request also counts inside another dialogue. That finds copies, not paraphrases.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Any

from constitutional_ai.data.prompts import SET_OF_KIND
from constitutional_ai.data.rows import PromptRow, Reading, normalised
from constitutional_ai.records import Conversation

EXAMPLES = 3
LONG = 100_000  # characters; few models' contexts hold more
_SHOWN = 100  # characters of an example
_LISTED = 12  # categories by name
_PLACES = 5  # row numbers of an oddity
_TELLING = 4  # words that make a turn a request of its own, unlike "Yes, please."


def survey(reading: Reading, against: Reading | None = None) -> dict[str, Any]:
    """Counts, oddities, duplicates and examples, as ``cai data --json`` prints them."""
    rows = reading.prompts
    lengths = [_length(row) for row in rows]
    first = _first_places(rows, normalised)
    result: dict[str, Any] = {
        "source": reading.table.name,
        "container": reading.table.container,
        "format": reading.format,
        "unit": reading.table.unit,
        "rows": reading.rows,
        "prompts": len(rows),
        "pairs": sum(row.answers is not None for row in rows),
        "kinds": _counts(row.kind for row in rows),
        "categories": _counts(row.category for row in rows),
        "multi_turn": sum(len(row.prompt) > 1 for row in rows),
        "characters": {"median": median(lengths), "longest": max(lengths)},
        "duplicates": [row.number for row in rows if first[normalised(row.prompt)] != row.number],
        "odd": reading.odd | _oddities(rows),
        "left_out": reading.left_out,
        "examples": [
            {
                "number": row.number,
                "kind": row.kind,
                "category": row.category,
                "turns": len(row.prompt),
                "request": row.prompt[-1]["content"],
            }
            for row in _spread(rows)
        ],
    }
    if against is not None:
        theirs = _first_places(against.prompts, request_key)
        shared = [row for row in rows if request_key(row.prompt) in theirs]
        result["overlap"] = {
            "against": against.table.name,
            "prompts": len(against.prompts),
            "shared": [[row.number, theirs[request_key(row.prompt)]] for row in shared],
        }
    return result


def _oddities(rows: Sequence[PromptRow]) -> dict[str, list[int]]:
    """What can be read but is seldom meant, with the numbers of the rows."""
    odd: dict[str, list[int]] = {}
    ids: set[str] = set()
    for row in rows:
        remarks = {
            f"the kind {row.kind!r} is none of {', '.join(SET_OF_KIND)}": (
                row.kind not in ("", *SET_OF_KIND)
            ),
            "an id that stands in an earlier row": bool(row.id) and row.id in ids,
            f"longer than {LONG:,} characters": _length(row) > LONG,
        }
        ids.add(row.id)
        for remark in (remark for remark, holds in remarks.items() if holds):
            odd.setdefault(remark, []).append(row.number)
    return odd


def _length(row: PromptRow) -> int:
    return sum(len(turn["content"]) for turn in row.prompt)


def request_key(prompt: Conversation) -> str:
    """What two copies of a request have in common.

    >>> request_key([{"role": "user", "content": "How do I… kill a  PROCESS?"}])
    'how do i kill a process'
    """
    last = normalised(prompt[-1:])
    return last if len(last.split()) >= _TELLING else normalised(prompt)


def _first_places(rows: Sequence[PromptRow], key: Callable[[Conversation], str]) -> dict[str, int]:
    return {key(row.prompt): row.number for row in reversed(rows)}


def _counts(values: Iterator[str]) -> dict[str, int]:
    counted = Counter(values)
    return {} if set(counted) == {""} else dict(counted.most_common())


def _spread(rows: Sequence[PromptRow]) -> list[PromptRow]:
    """The first row of each kind, then rows from all over the source."""
    firsts = {row.kind: row for row in reversed(rows)}
    picked = list(reversed(firsts.values()))[:EXAMPLES]
    step = max(1, len(rows) // EXAMPLES)
    picked += [row for row in rows[::step] if row not in picked]
    return picked[:EXAMPLES]


def told(result: dict[str, Any]) -> Iterator[str]:
    """The survey as lines for a terminal; the source's text is quoted, so it cannot act there."""
    unit, size = result["unit"], result["characters"]
    pairs = f", {result['pairs']:,} comparable pairs" if result["pairs"] else ""
    yield result["source"]
    yield _line("format", f"{result['format']} ({result['container']})")
    yield _line("rows", f"{result['rows']:,}, with {result['prompts']:,} prompts{pairs}")
    for name in ("kinds", "categories"):
        if result[name]:
            yield _line(name, _listed(result[name]))
    yield _line("several turns", f"{result['multi_turn']:,}")
    yield _line("characters", f"median {size['median']:,.0f}, longest {size['longest']:,}")
    yield _line("duplicates", _places(result["duplicates"], unit))
    for name in ("odd", "left_out"):
        for remark, places in (result[name] or {"none": []}).items():
            where = f": {_places(places, unit)}" if places else ""
            yield _line(name.replace("_", " "), _plain(remark) + where)
    if "overlap" in result:
        yield _overlap(result["overlap"], unit)
    for example in result["examples"]:
        tags = _plain("  ".join(filter(None, (example["kind"], example["category"]))))
        parts = (f"{unit} {example['number']}", tags, _quoted(example["request"]))
        yield _line("example", "  ".join(filter(None, parts)))


def _line(name: str, value: str) -> str:
    return f"{name:<14} {value}"


def _listed(counts: dict[str, int]) -> str:
    parts = [f"{_plain(name) or '(none)'} {n:,}" for name, n in counts.items()]
    rest = len(parts) - _LISTED
    return ", ".join(parts[:_LISTED]) + (f", and {rest} more" if rest > 0 else "")


def _places(places: Sequence[int], unit: str) -> str:
    if not places:
        return "none"
    listed = ", ".join(map(str, places[:_PLACES])) + (", …" if len(places) > _PLACES else "")
    return f"{len(places):,} ({unit}{'s' if len(places) > 1 else ''} {listed})"


def _overlap(overlap: dict[str, Any], unit: str) -> str:
    shared = overlap["shared"]
    shown = ", ".join(f"{mine} = {theirs}" for mine, theirs in shared[:_PLACES])
    more = ", …" if len(shared) > _PLACES else ""
    places = f" ({unit}s {shown}{more})" if shared else ""
    among = f"{overlap['prompts']:,} of {overlap['against']}"
    return _line("overlap", f"{len(shared):,} also among the {among}{places}")


def _quoted(text: str) -> str:
    """As JSON spells it, on one line: no character of it can move the cursor or colour anything."""
    cut = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return _plain(json.dumps(cut, ensure_ascii=False))


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
