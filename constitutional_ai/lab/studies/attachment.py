"""A folder of ``cai study`` as sections of a run's report."""

from pathlib import Path

from constitutional_ai.drawing.page import Section
from constitutional_ai.lab.studies import pages, results
from constitutional_ai.lab.studies.all_studies import STUDIES


def sections_of(folder: Path) -> list[Section]:
    """A section for each study with a result file. Raises DataError for a broken one."""
    files = {study.name: folder / "results" / f"{study.name}.json" for study in STUDIES}
    return [
        pages.section(study, results.load(files[study.name]))
        for study in STUDIES
        if files[study.name].exists()
    ]
