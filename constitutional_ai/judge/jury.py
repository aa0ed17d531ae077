"""Several judges of the same pairs: their mean, with each one recorded."""

from collections import Counter
from collections.abc import Sequence

from constitutional_ai.judge.judge import Comparison, Judge, Sits, Unlabelled, Verdict


class Jury:
    """Judges that share their settings; the label is the mean of their probabilities.

    A judge whose verdict cannot be read is left out of that pair's mean and counted in ``unread``.
    Where none can be read, the pair is Unlabelled.
    """

    def __init__(self, judges: Sequence[Judge]) -> None:
        self.judges = judges
        self.name = " + ".join(judge.name for judge in judges)

    def compare(self, questions: Sequence[Comparison], seed: int) -> list[Verdict | Unlabelled]:
        """As Judge.compare; all judges are asked under the same principles, behind one fence."""
        by_judge = [judge.compare(questions, seed) for judge in self.judges]
        return [together(verdicts) for verdicts in zip(*by_judge, strict=True)]


def seat(judges: Sequence[Judge]) -> Sits:
    """One judge alone, or a jury of several."""
    return judges[0] if len(judges) == 1 else Jury(judges)


def together(verdicts: Sequence[Verdict | Unlabelled]) -> Verdict | Unlabelled:
    """One verdict of the judges that gave one."""
    read = [verdict for verdict in verdicts if isinstance(verdict, Verdict)]
    lost = Counter(verdict.reason for verdict in verdicts if isinstance(verdict, Unlabelled))
    if not read:
        return Unlabelled(lost.most_common(1)[0][0], verdicts[0].principle_hashes)
    return Verdict(
        opinions=tuple(opinion for verdict in read for opinion in verdict.opinions),
        judges={name: p for verdict in read for name, p in verdict.judges.items()},
        settings=read[0].settings,
        decided_by=tuple(dict.fromkeys(name for verdict in read for name in verdict.decided_by)),
        lost=lost,
    )
