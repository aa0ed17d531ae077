"""What lint can find: the rules with their severity, and the form of one finding."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]

# rule -> severity. An error breaks a run or its labels; a warning is a likely mistake of wording.
SEVERITY: dict[str, Severity] = {
    # the file
    "invalid": "error",
    "unknown-rule": "error",
    "unused-ignore": "warning",
    # names and texts
    "name-collision": "error",
    "empty-text": "error",
    "short-text": "warning",
    "long-text": "warning",
    "placeholder": "error",
    "control-text": "error",
    "refers-elsewhere": "warning",
    # wording
    "vague": "warning",
    "unjudgeable": "warning",
    "loophole": "warning",
    "inverted-dont": "error",
    "negative-do": "warning",
    # prompts
    "names-option": "error",
    "names-position": "error",
    "not-a-comparison": "warning",
    "critique-compares": "warning",
    "unused-prompt": "warning",
    # uses and weights
    "no-critique": "error",
    "no-preference": "error",
    "one-phase": "warning",
    "never-drawn": "error",
    "drowns-others": "warning",
    "one-sided": "warning",
    # two principles
    "duplicate": "error",
    "near-duplicate": "warning",
    "same-prompt": "warning",
    "contradiction": "error",
}


@dataclass(frozen=True)
class Finding:
    """One thing to mend. ``principle`` is "" where the whole file is meant."""

    rule: str
    path: str
    line: int
    principle: str
    reason: str
    fix: str

    @property
    def severity(self) -> Severity:
        return SEVERITY[self.rule]

    def text(self) -> str:
        """``mine.toml:12: warning[vague] tone: reason`` and the remedy below it."""
        whose = f" {self.principle}:" if self.principle else ""
        head = f"{self.path}:{self.line}: {self.severity}[{self.rule}]{whose} {self.reason}"
        return f"{head}\n    fix: {self.fix}"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "severity": self.severity}
