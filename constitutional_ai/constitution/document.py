"""A constitution written as a document: Markdown headings, paragraphs and lists → entries.

The first heading of level 1 is the title. A heading below it opens a section. What a section holds:
list items, each a principle; or headings one level deeper, each a principle with its paragraphs; or
only paragraphs, and then the section is one principle. Paragraphs before a section's principles are
kept as comments.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from constitutional_ai.constitution.imported_principle import Entry

_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_ITEM = re.compile(r"^(\s*)(?:[-*+]|\d+[.)])\s+(.*)$")
_LEAD = re.compile(r"^\*\*(.+?)[.:]?\*\*[.:]?\s*(?:[-–—]\s*)?(.*)$", re.DOTALL)
_NUMBER = re.compile(
    r"^(?:(?:priority|section|article)\s+)?(\d+)[.):]?\s+(?:[-–—]\s*)?", re.IGNORECASE
)
_PRIORITY = re.compile(r"[\[(]?\bpriority\s*[:=]?\s*(\d+)\b[\])]?\.?", re.IGNORECASE)
_HARD = re.compile(r"[\[(]?\bhard(?:[ -]constraints?|[ -]limits?)?\s*:\s*(?:yes|true)\b[\])]?\.?"
                   r"|[\[(]\s*hard(?:[ -]constraint)?\s*[\])]", re.IGNORECASE)  # fmt: skip
_HARD_TITLE = re.compile(
    r"\bhard (?:constraints?|limits?|lines?)\b|\bbright lines?\b|\babsolute\b", re.I
)
_WHY = re.compile(
    r"^(?:\*\*|_|\*)?(?:why|rationale|reason(?:ing)?)(?:\*\*|_|\*)?\s*:(?:\*\*)?\s*", re.I
)
_VERSION = re.compile(r"^version\s*:?\s*(\d[\w.]*)\s*", re.IGNORECASE)
_WHY_WITHIN = re.compile(r"\s(?:Why|Rationale):\s+")


@dataclass
class Document:
    title: str = ""
    description: str = ""
    version: str = ""
    entries: list[Entry] = field(default_factory=list)


@dataclass
class _Block:
    """A heading, a list item or a paragraph, as one line of text."""

    sort: str
    text: str
    line: int
    level: int = 0


@dataclass
class _Rank:
    """What the headings above a principle say of its place."""

    priority: int = 0
    hard: bool = False

    def below(self, text: str) -> "_Rank":
        number, named = _NUMBER.match(text), _PRIORITY.search(text)
        priority = int(named[1]) if named else int(number[1]) if number else self.priority
        hard = self.hard or bool(_HARD.search(text) or _HARD_TITLE.search(text))
        return _Rank(priority, hard)

    def marked(self, text: str) -> "_Rank":
        """After a paragraph such as "Priority: 2" under the heading."""
        named = _PRIORITY.search(text)
        priority = int(named[1]) if named else self.priority
        return _Rank(priority, self.hard or bool(_HARD.search(text)))


def read_document(text: str) -> Document:
    """Principles in the order of the text, settled: named, ranked, their kind told."""
    reader = _Reader()
    for block in _blocks(text):
        reader.take(block)
    reader.close_section()
    document = reader.document
    kept = [entry for entry in document.entries if str(entry.fields["text"]).strip()]
    document.entries = [entry.settled() for entry in kept]
    return document


class _Reader:
    """Goes through the blocks; knows the section that it is in, and the principle that grows."""

    def __init__(self) -> None:
        self.document = Document()
        self._base = 0  # the level of section headings
        self._section, self._rank = "", _Rank()
        self._intro: list[_Block] = []  # paragraphs between a section's heading and its principles
        self._opened = 0  # principles of this section
        self._current: Entry | None = None
        self._listed = False  # whether the current one is a list item

    def take(self, block: _Block) -> None:
        if block.sort == "heading":
            self._heading(block)
        elif block.sort == "item" and block.level == 0 and (self._current is None or self._listed):
            lead = _LEAD.match(block.text)
            name, said = (lead[1], lead[2] or lead[1]) if lead else ("", block.text)
            self._open(said, name, block.line, self._rank, listed=True)
        elif self._current is not None and not (self._listed and self._ends_list(block)):
            _add(self._current, block)
        elif self._section:
            self._intro.append(block)
            self._rank = self._rank.marked(block.text)
        else:
            self._describe(block.text)

    def _describe(self, text: str) -> None:
        document = self.document
        if version := _VERSION.match(text):
            document.version, text = version[1], text[version.end() :]
        document.description = f"{document.description} {text}".strip()

    def _ends_list(self, block: _Block) -> bool:
        """A plain paragraph after a list is no part of its last item; a reason for it is."""
        return block.sort == "paragraph" and not _WHY.match(block.text)

    def _heading(self, block: _Block) -> None:
        document = self.document
        if block.level == 1 and not (document.title or document.entries or self._section):
            document.title = _bare(block.text)
            return
        self._base = self._base or block.level
        if block.level <= self._base:
            self.close_section()
            self._section, self._rank = block.text, _Rank().below(block.text)
            self._intro, self._opened, self._current = [], 0, None
        else:
            rank = self._rank.below(block.text)
            self._open("", _bare(block.text), block.line, rank, listed=False)

    def _open(self, text: str, name: str, line: int, rank: _Rank, listed: bool) -> Entry:
        """A new principle; a section's first carries its title and introduction as comments."""
        entry = Entry.of(text, name, line)
        entry.fields |= {"priority": rank.priority, "hard": rank.hard}
        if self._section and not self._opened:
            said = [block.text for block in self._intro if not _only_marks(block.text)]
            entry.notes = [f"---- {self._section}", *said]
        self._opened += 1
        self._current, self._listed = entry, listed
        self.document.entries.append(entry)
        _heed_marks(entry)
        return entry

    def close_section(self) -> None:
        """A section of paragraphs alone is itself a principle."""
        if self._section and not self._opened and self._intro:
            blocks, self._intro = self._intro, []
            name = _bare(self._section)
            entry = self._open("", name, blocks[0].line, self._rank, listed=False)
            for block in blocks:
                _add(entry, block)


def _add(entry: Entry, block: _Block) -> None:
    """A paragraph, quote or inner list item: the principle's text, rationale or rank."""
    text = block.text
    if block.sort == "quote" or _WHY.match(text):
        said = f"{entry.fields.get('rationale', '')} {_WHY.sub('', text)}"
        entry.fields["rationale"] = said.strip()
    elif block.sort == "item" and block.level == 0 and not text.endswith((".", "!", "?", ";")):
        entry.extend(f"{text};")
    else:
        entry.extend(text)
    _heed_marks(entry)


def _heed_marks(entry: Entry) -> None:
    """Take "Priority: 2" and "(hard constraint)" out of the words, and into the fields."""
    text, *why = _WHY_WITHIN.split(str(entry.fields["text"]), maxsplit=1)
    if why:
        entry.fields["rationale"] = f"{entry.fields.get('rationale', '')} {why[0]}".strip()
    if named := _PRIORITY.search(text):
        entry.fields["priority"] = int(named[1])
    if _HARD.search(text):
        entry.fields["hard"] = True
    entry.fields["text"] = " ".join(_HARD.sub(" ", _PRIORITY.sub(" ", text)).split())


def _only_marks(text: str) -> bool:
    return not _HARD.sub("", _PRIORITY.sub("", text)).strip(" .;,")


def _bare(heading: str) -> str:
    """A heading without its number and marks."""
    plain = _HARD.sub("", _PRIORITY.sub("", heading))
    return _NUMBER.sub("", plain).strip(" ()[]-–—:") or heading


def _blocks(text: str) -> Iterator[_Block]:
    """Headings, list items, quotes and paragraphs, each with all its lines; code is left out."""
    block: _Block | None = None
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
            continue
        if fenced or re.fullmatch(r"\s*(?:-{3,}|\*{3,}|_{3,})\s*", line):
            continue
        new = _start(line, number, inside=block is not None and block.sort != "heading")
        if new is None and line.strip() and block is not None and block.sort != "heading":
            block.text = f"{block.text} {line.strip().removeprefix('>').strip()}"
            continue
        if block is not None:
            yield block
        block = new
    if block is not None:
        yield block


def _start(line: str, number: int, inside: bool) -> _Block | None:
    """The block that a line opens; None where it goes on with one, or is empty."""
    if heading := _HEADING.match(line):
        return _Block("heading", heading[2], number, len(heading[1]))
    if item := _ITEM.match(line):
        return _Block("item", item[2].strip(), number, len(item[1]) // 2)
    if not line.strip() or inside:
        return None
    if line.lstrip().startswith(">"):
        return _Block("quote", line.lstrip().removeprefix(">").strip(), number)
    return _Block("paragraph", line.strip(), number)
