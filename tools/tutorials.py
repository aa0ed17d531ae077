"""Runs the commands in tutorials and writes their real outputs below them. For maintainers.

    python tools/tutorials.py FILE... [--from DIR] [--tables-only]

In a ```` ```console ```` block a line that begins with ``$ `` is a command. The lines below it, up
to the next command, are its output and are replaced. The block's ``show=N`` (``console show=8``)
keeps the last N lines of a longer output, after a ``…``. Between

    <!-- study: comparison -->  and  <!-- /study -->

stands a study's table, filled from its result file in DIR. Every command has a shell of its own in
the working directory, as for a reader of the tutorial: read a file before you refresh it.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from constitutional_ai.errors import DataError
from constitutional_ai.lab.studies import pages
from constitutional_ai.lab.studies.all_studies import chosen
from constitutional_ai.lab.studies.results import RESULTS, load

_BLOCK = re.compile(r"^```console(?P<head>[^\n]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_SHOW = re.compile(r"show=(\d+)")
_TABLE = re.compile(
    r"(?P<open><!-- study: (?P<name>[\w-]+) -->\n).*?(?P<close><!-- /study -->)", re.DOTALL
)
SHOWN = 40  # lines of an output, unless the block has its own number


def refresh(file: Path, results: Path | None, run: bool) -> Iterator[str]:
    """Write the file again with new outputs; yields a line for each change.

    Raises DataError if a command fails or a study has no result. The file then stays as it was.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    done: list[str] = []
    if run:
        text = _BLOCK.sub(lambda block: _ran(file, block, done), text)
    if results:
        text = _TABLE.sub(lambda place: _filled(results, place, done), text)
    file.write_text(text, encoding="utf-8")
    yield from done
    yield f"{file}: {len(done)} places"


def commands(body: str) -> list[str]:
    """The commands of a block; a backslash at the end of a line joins it with the next.

    >>> commands("$ echo a\\na\\n$ echo b \\\\\\n    c\\nb c\\n")
    ['echo a', 'echo b \\\\\\n    c']
    """
    every: list[str] = []
    going = False
    for line in body.splitlines():
        if going:
            every[-1] += f"\n{line}"
        elif line.startswith("$ "):
            every.append(line[2:])
        going = (going or line.startswith("$ ")) and line.endswith("\\")
    return every


def _ran(file: Path, block: re.Match[str], done: list[str]) -> str:
    show = _SHOW.search(block["head"])
    lines = []
    for command in commands(block["body"]):
        said = subprocess.run(
            command,
            shell=True,
            capture_output=True,
            text=True,
            executable="/bin/bash",
            check=False,
            env=_with_this_cai(),
        )
        if said.returncode:
            raise DataError(
                f"{file}: `{command}` ended with {said.returncode}: {said.stderr.strip()[-300:]}"
            )
        output = said.stdout.rstrip().splitlines()
        lines += [f"$ {command}", *_last(output, int(show[1]) if show else SHOWN)]
        done.append(f"ran: {command}")
    return "\n".join([f"```console{block['head']}", *lines, "```"])


def _with_this_cai() -> dict[str, str]:
    """An environment in which `cai` and `python` are those that run now."""
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}"}


def _last(output: list[str], count: int) -> list[str]:
    return output if len(output) <= count else ["…", *output[-count:]]


def _filled(results: Path, place: re.Match[str], done: list[str]) -> str:
    name = place["name"]
    (study,) = chosen(name)
    result = load(results / RESULTS / f"{name}.json")
    table = pages.table(study, result)
    done.append(f"table: {name}")
    said = f"{pages.intervals(result)} Made by `{result.command}`."
    return f"{place['open']}\n{table}\n\n{said}\n\n{place['close']}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", metavar="FILE", type=Path, nargs="+", help="Markdown files")
    parser.add_argument("--from", dest="results", metavar="DIR", type=Path, help="studies' results")
    parser.add_argument("--tables-only", action="store_true", help="fill in tables; run nothing")
    options = parser.parse_args()
    for file in options.files:
        for line in refresh(file, options.results, run=not options.tables_only):
            print(line)


if __name__ == "__main__":
    main()
