"""A constitution written as a Markdown document: headings, paragraphs and lists → entries.

The first heading of level 1 is the title; each heading below it opens a section. A section has list
items, each of them a principle; or deeper headings, each a principle with its paragraphs; or only
paragraphs, which are then one principle. Other paragraphs of a section are kept as comments. Code
and tables are left out.
"""

import re
from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode as Node

from constitutional_ai.constitution.entries import Entry

_NUMBER = re.compile(r"(?:(?:priority|section|article)\s+)?(\d+)[.):]?\s+(?:[-–—]\s*)?", re.I)
_PRIORITY = re.compile(r"[\[(]?\bpriority\s*[:=]?\s*(\d+)\b[\])]?\.?", re.I)
_HARD = re.compile(
    r"[\[(]?\bhard(?:[ -]constraints?|[ -]limits?)?\s*:\s*(?:yes|true)\b[\])]?\.?"
    r"|[\[(]\s*hard(?:[ -]constraint)?\s*[\])]",
    re.I,
)
_HARD_TITLE = re.compile(
    r"\bhard (?:constraints?|limits?|lines?)\b|\bbright lines?\b|\babsolute\b", re.I
)
_WHY = re.compile(r"(?:why|rationale|reason(?:ing)?)\s*:\s*", re.I)
_WHY_WITHIN = re.compile(r"\s(?:Why|Rationale):\s+")
_VERSION = re.compile(r"version\s*:?\s*(\d[\w.]*)\s*", re.I)
_LISTS = ("bullet_list", "ordered_list")
_BLOCKS = ("heading", "paragraph", "blockquote", *_LISTS)
_FRONT_MATTER = re.compile(r"\A---\n.*?^---\n", re.DOTALL | re.MULTILINE)


@dataclass
class Document:
    title: str = ""
    description: str = ""
    version: str = ""
    entries: list[Entry] = field(default_factory=list)


@dataclass
class _Rank:
    """What the headings above a principle say about its place."""

    priority: int = 0
    hard: bool = False

    def below(self, text: str) -> "_Rank":
        """Below a heading, whose number is a priority too."""
        number = _NUMBER.match(text)
        rank = _Rank(int(number[1]) if number else self.priority, self.hard)
        return rank.marked(text, bool(_HARD_TITLE.search(text)))

    def marked(self, text: str, hard: bool = False) -> "_Rank":
        """With a mark such as "Priority: 2" or "(hard constraint)"."""
        named = _PRIORITY.search(text)
        priority = int(named[1]) if named else self.priority
        return _Rank(priority, self.hard or hard or bool(_HARD.search(text)))


def read_document(text: str) -> Document:
    """Principles in the order of the text, with names, ranks and kinds."""
    text = _FRONT_MATTER.sub(lambda match: "\n" * match[0].count("\n"), text)
    reader = _Reader()
    for node in Node(MarkdownIt("commonmark").enable("table").parse(text)).children:
        if node.type in _BLOCKS:
            reader.take(node)
    reader.close_section()
    document = reader.document
    for entry in document.entries:
        _heed_marks(entry)
    document.entries = [entry.settled() for entry in document.entries if entry.fields["text"]]
    return document


class _Reader:
    """Goes through the blocks; knows the section that it is in and the principle that grows."""

    def __init__(self) -> None:
        self.document = Document()
        self._level = 0  # of section headings
        self._section, self._rank = "", _Rank()
        self._intro: list[Node] = []  # paragraphs between a section's heading and its principles
        self._opened = False  # whether the section has a principle
        self._current: Entry | None = None
        self._listed = False  # whether the current principle is a list item

    def take(self, node: Node) -> None:
        text, current = _plain(node), self._current
        if node.type == "heading":
            self._heading(text, int(node.tag[1]), _line(node))
        elif node.type in _LISTS and (current is None or self._listed):
            for item in node.children:
                self._item(item)
        elif current is not None and (not self._listed or _WHY.match(text)):
            _add(current, node)
        elif current is not None:
            current.notes.append(text)  # a paragraph after a list is no part of its last item
        elif self._section:
            self._intro.append(node)
            self._rank = self._rank.marked(text)
        else:
            self._describe(text)

    def _describe(self, text: str) -> None:
        document = self.document
        if version := _VERSION.match(text):
            document.version, text = version[1], text[version.end() :]
        document.description = f"{document.description} {text}".strip()

    def _heading(self, text: str, level: int, line: int) -> None:
        document = self.document
        if level == 1 and not (document.title or document.entries or self._section):
            document.title = _bare(text)
            return
        self._level = self._level or level
        if level <= self._level:
            self.close_section()
            self._section, self._rank = text, _Rank().below(text)
            self._intro, self._opened, self._current = [], False, None
        else:
            self._open("", _bare(text), line, self._rank.below(text))

    def _item(self, item: Node) -> None:
        """A principle; bold words at the beginning are its name."""
        name, text = _lead(item)
        entry = self._open(text, name, _line(item), self._rank, listed=True)
        for node in item.children[1:]:
            _add(entry, node)

    def _open(self, text: str, name: str, line: int, rank: _Rank, listed: bool = False) -> Entry:
        """A new principle; a section's first carries its title and introduction as comments."""
        entry = Entry.of(text, name, line)
        entry.fields |= {"priority": rank.priority, "hard": rank.hard}
        if self._section and not self._opened:
            intro = [_plain(node) for node in self._intro]
            entry.notes = [f"---- {self._section}", *(one for one in intro if _unmarked(one))]
        self._opened = True
        self._current, self._listed = entry, listed
        self.document.entries.append(entry)
        return entry

    def close_section(self) -> None:
        """A section that has only paragraphs is itself a principle."""
        if self._section and self._intro and not self._opened:
            nodes, self._intro = self._intro, []
            entry = self._open("", _bare(self._section), _line(nodes[0]), self._rank)
            for node in nodes:
                _add(entry, node)


def _add(entry: Entry, node: Node) -> None:
    """A block that belongs to a principle: part of its text, or its rationale."""
    text = _plain(node)
    if node.type == "blockquote" or _WHY.match(text):
        reasons = f"{entry.fields.get('rationale', '')} {_WHY.sub('', text, count=1)}"
        entry.fields["rationale"] = reasons.strip()
    elif node.type in _LISTS:
        for item in map(_plain, node.children):
            entry.extend(item if item.endswith((".", "!", "?", ";")) else f"{item};")
    else:
        entry.extend(text)


def _heed_marks(entry: Entry) -> None:
    """Move "Why: …", "Priority: 2" and "(hard constraint)" from the words to the fields."""
    text, *why = _WHY_WITHIN.split(str(entry.fields["text"]), maxsplit=1)
    if why:
        entry.fields["rationale"] = f"{entry.fields.get('rationale', '')} {why[0]}".strip()
    rank = _Rank(entry.fields["priority"], entry.fields["hard"]).marked(text)
    entry.fields |= {"priority": rank.priority, "hard": rank.hard}
    entry.fields["text"] = " ".join(_HARD.sub(" ", _PRIORITY.sub(" ", text)).split())


def _unmarked(text: str) -> str:
    """The text without marks; "" where it has nothing else."""
    return _HARD.sub("", _PRIORITY.sub("", text)).strip(" .;,")


def _bare(heading: str) -> str:
    """A heading without its number and marks."""
    return _NUMBER.sub("", _unmarked(heading), count=1).strip(" ()[]-–—:") or heading


# ---- Markdown's tree ----------------------------------------------------------------------------


def _line(node: Node) -> int:
    return node.map[0] + 1 if node.map else 0


def _plain(node: Node) -> str:
    """All its words on one line, without Markdown's marks; code blocks are left out."""
    parts = [
        one.content if one.type in ("text", "code_inline") else " "
        for one in node.walk()
        if one.type in ("text", "code_inline", "softbreak", "hardbreak", "paragraph", "list_item")
    ]
    return " ".join("".join(parts).split())


def _lead(item: Node) -> tuple[str, str]:
    """(name, text) of a list item: the bold words that it begins with, and what follows them."""
    if not item.children or item.children[0].type != "paragraph":
        return "", ""
    (inline,) = item.children[0].children
    text, inner = _plain(inline), [node for node in inline.children if _plain(node)]
    if not inner or inner[0].type != "strong":
        return "", text
    name = _plain(inner[0])
    rest = text.removeprefix(name).lstrip(" .:-–—")
    return name.strip(".: "), rest or name
