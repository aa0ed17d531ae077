"""``cai study``: several runs, one table.

``seeds`` runs one file under several seeds; the others are the studies of the paper's findings.
"""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from constitutional_ai.cli.options import Json, RunFile, Set, group, progress
from constitutional_ai.errors import UserError
from constitutional_ai.lab.studies.about import ABOUT

app = group("Several runs, one table.")

DOCS = Path("docs")


@app.command()
def seeds(
    file: RunFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A run folder for each seed goes here.")],
    set_: Set = None,
    seeds: Annotated[str, typer.Option(help="Seeds, separated by commas.")] = "0,1,2",
    free_steps: Annotated[
        int,
        typer.Option(min=0, help="PPO steps of the runs without KL penalty; 0: leave them out."),
    ] = 160,
    json: Json = False,
) -> None:
    """Run one file under several seeds and print the table."""
    from constitutional_ai.lab.studies.acceptance import seeds as run_seeds

    run_seeds(file, set_ or [], out, _whole_numbers(seeds), progress(json), free_steps)


def _whole_numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--seeds {text}: expected numbers with commas between, such as 0,1,2")
    return [int(part) for part in parts]


From = Annotated[Path, typer.Option("--from", metavar="DIR", help="The --out of the studies.")]


def _study_command(name: str) -> Callable[..., None]:
    def command(
        out: Annotated[Path, typer.Option(metavar="DIR", help="Runs, results and pages go here.")],
        seeds: Annotated[
            str, typer.Option(help="Seeds, separated by commas; default 0,1,2, with --quick 0.")
        ] = "",
        quick: Annotated[bool, typer.Option("--quick", help="One seed and small counts.")] = False,
        jobs: Annotated[
            int | None,
            typer.Option(min=0, help="Parallel steps; default one a core; 0: in this process."),
        ] = None,
        file: Annotated[
            str | None, typer.Option(metavar="FILE", help="Another run file to start from.")
        ] = None,
        set_: Set = None,
        docs: Annotated[
            bool, typer.Option("--docs", help="Write the pages into docs/studies instead.")
        ] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Show the runs and what they share; run nothing.")
        ] = False,
        json: Json = False,
    ) -> None:
        import os

        from constitutional_ai.lab.studies import running
        from constitutional_ai.lab.studies.all_studies import chosen
        from constitutional_ai.lab.studies.study import Base

        if jobs is None:
            jobs = len(os.sched_getaffinity(0))
        file = file or (running.QUICK if quick else running.FULL)
        numbers, changed = _whole_numbers(seeds or ("0" if quick else "0,1,2")), set_ or []
        asked = ["--seeds", ",".join(map(str, numbers)), "--file", file]
        asked += [word for override in changed for word in ("--set", override)]
        again = f"cai study NAME --out DIR {shlex.join(asked)}"
        base = Base(out, file, tuple(changed))
        wanted = running.Wanted(chosen(name), base, numbers, jobs, again)
        if dry_run:
            print(running.plan_text(wanted))
            return
        running.run(wanted, progress(json))
        _write_pages(out, DOCS / "studies" if docs else out / "pages")

    return command


_HELP = {name: about.help for name, about in ABOUT.items()}
for _name, _help in {**_HELP, "all": "every study; what they share is made once"}.items():
    app.command(_name, help=_help[0].upper() + _help[1:] + ".")(_study_command(_name))


@app.command()
def pages(
    from_: From,
    docs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="For the pages; default DIR/pages.")
    ] = None,
) -> None:
    """Draw the studies' pages again from their result files."""
    _write_pages(from_, docs or from_ / "pages")


@app.command()
def claims(
    from_: From,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The page.")] = DOCS / "claims.md",
) -> None:
    """What the paper found, and what the studies' results show of it.

    Claims that an earlier FILE measured, and DIR has no results of, stay in it.
    """
    from constitutional_ai.lab.studies.claims import markdown
    from constitutional_ai.lab.studies.results import load_all

    page = out.read_text(encoding="utf-8") if out.exists() else ""
    text = markdown(load_all(from_), page=page)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    print(out)


def _write_pages(out: Path, folder: Path) -> None:
    """Pages of every result in OUT, and OUT/studies.html. Pages outside OUT get copies of the
    results, so that they and the claims can be made again without the runs.
    """
    from constitutional_ai.lab.studies import pages as written
    from constitutional_ai.lab.studies.all_studies import STUDIES as known
    from constitutional_ai.lab.studies.results import RESULTS, load_all

    results = load_all(out)
    if not folder.resolve().is_relative_to(out.resolve()):
        shutil.copytree(out / RESULTS, folder / RESULTS, dirs_exist_ok=True)
    pairs = [(study, results[study.name]) for study in known if study.name in results]
    for study, result in pairs:
        print(written.write(study, result, folder))
    (out / written.HTML).write_text(written.html(pairs), encoding="utf-8")
    print(out / written.HTML)
