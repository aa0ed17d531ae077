"""Tutorials whose outputs are real: runs the commands that stand in them, and puts the outputs in.

In a block of the kind ```` ```console ```` a line that begins with ``$ `` is a command; what
follows it, up to the next one, is its output and is replaced. Of an output that is longer than the
block's ``show=N`` (``console show=8``) the last N lines are shown, after a ``…``. Between

    <!-- study: comparison -->  and  <!-- /study -->

stands a study's table, taken from its result file. Commands run in the working directory, in one
shell for each, as the reader of the tutorial would run them: read a file before you refresh it.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from constitutional_ai.errors import DataError
from constitutional_ai.lab.studies import pages
from constitutional_ai.lab.studies import results as cells
from constitutional_ai.lab.studies.all_studies import chosen
from constitutional_ai.lab.studies.running import RESULTS

_BLOCK = re.compile(r"^```console(?P<head>[^\n]*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
_SHOW = re.compile(r"show=(\d+)")
_TABLE = re.compile(
    r"(?P<open><!-- study: (?P<name>[\w-]+) -->\n).*?(?P<close><!-- /study -->)", re.DOTALL
)
SHOWN = 40  # lines of an output, where the block does not say


def refresh(file: Path, results: Path | None, run: bool) -> Iterator[str]:
    """Write the file again, with new outputs; a line for each thing that was done.

    Raises DataError where a command fails or a study has no result; the file is then as it was.
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
    """The commands of a block; a backslash at the end of a line goes on with the next.

    >>> commands("$ echo a\\na\\n$ echo b \\\\\\n    c\\nb c\\n")
    ['echo a', 'echo b \\\\\\n    c']
    """
    found: list[str] = []
    going = False
    for line in body.splitlines():
        if going:
            found[-1] += f"\n{line}"
        elif line.startswith("$ "):
            found.append(line[2:])
        going = (going or line.startswith("$ ")) and line.endswith("\\")
    return found


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
    """The environment in which `cai` and `python` are those that run now, on the PATH or not."""
    here = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{here}{os.pathsep}{os.environ.get('PATH', '')}"}


def _last(output: list[str], count: int) -> list[str]:
    return output if len(output) <= count else ["…", *output[-count:]]


def _filled(results: Path, place: re.Match[str], done: list[str]) -> str:
    name = place["name"]
    (study,) = chosen(name)
    result = cells.load(results / RESULTS / f"{name}.json")
    table = pages.table(study, result)
    done.append(f"table: {name}")
    said = f"{pages.intervals(result)} Made by `{result.command}`."
    return f"{place['open']}\n{table}\n\n{said}\n\n{place['close']}"
