"""Stage 8: one page that a person reads, with its figures also as files beside it."""

from typing import Any

from constitutional_ai.drawing import figures
from constitutional_ai.drawing.page import Drawing, render
from constitutional_ai.job import Job
from constitutional_ai.report import plots, sections
from constitutional_ai.report.findings import gather

NAME = "report"
FILE = "report.html"


def run(job: Job) -> dict[str, Any]:
    """Write report.html, a .svg for each figure, and summary.png; the counts of the manifest."""
    folder = job.stage(NAME).path
    folder.mkdir(parents=True, exist_ok=True)
    findings = gather(job)
    drawn = plots.draw(findings)
    drawings = {}
    with job.progress.task(NAME, total=len(drawn) + 1, unit="parts") as tick:
        for name, plot in drawn.items():
            source = figures.svg(plot.figure, name)
            (folder / f"{name}.svg").write_text(source, encoding="utf-8")
            alt = f"{plot.title or 'Harmlessness and helpfulness'}. {plot.caption}"
            drawings[name] = Drawing(plot.title, plot.caption, figures.inline(source, alt))
            tick(1)
        if "tradeoff" in drawn:
            figures.png(drawn["tradeoff"].figure, folder / "summary.png")
        page = render(sections.page(findings, drawings))
        (folder / FILE).write_text(page, encoding="utf-8")
        tick(1)
    job.progress.note(f"report: {folder / FILE}")
    return {"figures": len(drawn), "bytes": len(page.encode())}
