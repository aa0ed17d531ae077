"""``cai study``: several runs, one table.

``seeds`` runs one file under several seeds; the others are the studies of the paper's findings.
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from constitutional_ai.cli.options import Json, RunFile, Set, group, progress
from constitutional_ai.errors import UserError

if TYPE_CHECKING:
    from constitutional_ai.lab.studies.running import Wanted

app = group("Several runs, one table.")

# The studies by name, with what --help says; written out here so that help imports none of them.
STUDIES = {
    "revisions": "harm and help after each revision (Figure 5)",
    "number": "how many principles, and how different (Figure 6)",
    "direct": "critique and revision against revision alone (Figure 7)",
    "sizes": "size of the model, judging and self-critique (Figure 4)",
    "labels": "hard, soft, clamped labels and chain of thought (Figure 9)",
    "training": "harmlessness and helpfulness through RL training (Figures 2, 3, 8)",
    "absolute": "absolute harm at temperature 0 and 1 (Figure 10)",
    "comparison": "CAI, SFT and RLHF at an equal budget, with Elo",
    "overoptimisation": "gold and proxy reward over the distance; the monitor; ensembles",
    "principles": "which principle does the work",
}
DOCS = Path("docs")


@app.command()
def seeds(
    file: RunFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A run folder for each seed goes here.")],
    set_: Set = None,
    seeds: Annotated[str, typer.Option(help="Seeds with commas between.")] = "0,1,2",
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
            str, typer.Option(help="Seeds with commas between; default 0,1,2, with --quick 0.")
        ] = "",
        quick: Annotated[bool, typer.Option("--quick", help="One seed and small counts.")] = False,
        jobs: Annotated[
            int | None,
            typer.Option(min=0, help="Steps at once; default one a core; 0: in this process."),
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

        if jobs is None:
            jobs = len(os.sched_getaffinity(0))
        file = file or (running.QUICK if quick else running.FULL)
        chosen = _whole_numbers(seeds or ("0" if quick else "0,1,2"))
        wanted = _wanted(name, out, file, set_ or [], chosen, jobs)
        if dry_run:
            print(running.plan_text(wanted))
            return
        running.run(wanted, progress(json))
        _write_pages(out, DOCS / "studies" if docs else out / "pages")

    return command


def _wanted(
    name: str, out: Path, file: str, overrides: list[str], seeds: list[int], jobs: int
) -> "Wanted":
    from constitutional_ai.lab.studies.all_studies import chosen
    from constitutional_ai.lab.studies.plan import Base
    from constitutional_ai.lab.studies.running import Wanted

    asked = ["--seeds", ",".join(map(str, seeds)), "--file", file]
    asked += [word for override in overrides for word in ("--set", override)]
    command = f"cai study NAME --out DIR {shlex.join(asked)}"
    return Wanted(chosen(name), Base(out, file, tuple(overrides)), seeds, jobs, command)


for _name, _help in {**STUDIES, "all": "every study; what they share is made once"}.items():
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

    What an earlier FILE had measured, and DIR has no results of, stays in it.
    """
    from constitutional_ai.lab.studies import results as cells
    from constitutional_ai.lab.studies.claims import markdown
    from constitutional_ai.lab.studies.running import results_in

    results = {path.stem: cells.load(path) for path in results_in(from_)}
    page = out.read_text(encoding="utf-8") if out.exists() else ""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(markdown(results, page=page), encoding="utf-8")
    print(out)


@app.command()
def tutorial(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Markdown files.")],
    from_: Annotated[
        Path | None, typer.Option("--from", metavar="DIR", help="Results of studies, for tables.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--tables-only", help="Fill tables in; run no command.")
    ] = False,
) -> None:
    """Run the commands that stand in tutorials and put their outputs in; refill their tables."""
    from constitutional_ai.lab.studies import tutorials

    for file in files:
        for line in tutorials.refresh(file, from_, run=not keep):
            print(line)


def _write_pages(out: Path, folder: Path) -> None:
    """Pages of every result in OUT, and OUT/studies.html. Pages that leave OUT take the results
    along, so that they and the claims can be made again without the runs.
    """
    import shutil

    from constitutional_ai.lab.studies import pages as written
    from constitutional_ai.lab.studies import results as cells
    from constitutional_ai.lab.studies.all_studies import STUDIES as known
    from constitutional_ai.lab.studies.running import RESULTS, results_in

    found = {path.stem: cells.load(path) for path in results_in(out)}
    if not folder.resolve().is_relative_to(out.resolve()):
        (folder / RESULTS).mkdir(parents=True, exist_ok=True)
        for path in results_in(out):
            shutil.copyfile(path, folder / RESULTS / path.name)
    pairs = [(study, found[study.name]) for study in known if study.name in found]
    for study, result in pairs:
        print(written.write(study, result, folder))
    (out / written.HTML).write_text(written.html(pairs), encoding="utf-8")
    print(out / written.HTML)
