"""What every table of settings has in common: strict types, bounded numbers, and an identity."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

MOST = 10**9  # of anything that is counted
Count = Annotated[int, Field(ge=1, le=MOST)]
CountOrNone = Annotated[int, Field(ge=0, le=MOST)]  # zero switches the thing off
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
TopP = Annotated[float, Field(gt=0, le=1)]


class Table(BaseModel):
    """Types are strict: ``"3"`` and ``true`` are no integers, an integer is a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    # Fields that came later, each with the value that means what was done before it came.
    ADDED: ClassVar[Mapping[str, Any]] = {}
    # Fields that say when a stage stops. They decide no row, so a change of them makes no others.
    LIMITS: ClassVar[tuple[str, ...]] = ()

    def identity(self) -> dict[str, Any]:
        """What rows are named after and folders are compared by.

        A field of ADDED counts only where it asks for something new, so that rows and folders of
        earlier versions keep their names. Values are as JSON gives them back.
        """
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.model_dump().items()
            if name not in self.LIMITS and (name not in self.ADDED or value != self.ADDED[name])
        }
