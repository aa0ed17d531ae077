"""Every study, in the order in which the documentation shows them."""

from constitutional_ai.errors import UserError
from constitutional_ai.lab.studies import (
    absolute,
    comparison,
    direct,
    labels,
    number,
    overoptimisation,
    principles,
    revisions,
    sizes,
    training,
)
from constitutional_ai.lab.studies.study import Study

STUDIES: tuple[Study, ...] = (
    revisions.STUDY,
    number.STUDY,
    direct.STUDY,
    sizes.STUDY,
    labels.STUDY,
    training.STUDY,
    absolute.STUDY,
    comparison.STUDY,
    overoptimisation.STUDY,
    principles.STUDY,
)


def chosen(name: str) -> list[Study]:
    """The study of that name, or all. Raises UserError for any other name."""
    named = [study for study in STUDIES if name in (study.name, "all")]
    if not named:
        names = ", ".join(study.name for study in STUDIES)
        raise UserError(f"no study is named {name!r}; there are: {names}, all")
    return named
