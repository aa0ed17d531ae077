"""Options that several commands take, and the errors that become exit codes.

Exit codes: 0 done, 1 failed, 2 the user's mistake (one line on stderr), 130 interrupted.
"""

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from constitutional_ai.errors import Problems, RowsFailed, TrainingDiverged, UserError
from constitutional_ai.stage_list import STAGE_NAMES

if TYPE_CHECKING:
    from constitutional_ai.progress import Progress

# A test holds this true.
SHIPPED = "lab, study, study-quick, smollm2-135m, qwen-0.5b, qwen-0.5b-laptop, llama-8b-lora"
RunFile = Annotated[
    str, typer.Argument(metavar="FILE", help=f"A run file, or a shipped one: {SHIPPED}.")
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run folder; default out/NAME.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: ppo.kl_coef=0.2"),
]
Json = Annotated[bool, typer.Option("--json", help="Progress as JSON lines on stdout.")]


PIPELINE = ("run", *STAGE_NAMES)


class Commands(TyperGroup):
    """Turns what a command raises into exit codes, in this one place; lists the pipeline first."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return [n for n in PIPELINE if n in names] + [n for n in names if n not in PIPELINE]

    def invoke(self, ctx: Any) -> Any:
        try:
            with _interruptible():
                return super().invoke(ctx)
        except UserError as error:
            lines = error.lines if isinstance(error, Problems) else [str(error)]
            raise typer.Exit(max(_say(2, line) for line in lines)) from None
        except KeyboardInterrupt:
            text = "interrupted; run the same command again to continue"
            raise typer.Exit(_say(130, text)) from None
        except BrokenPipeError:  # as `cai … | head` has it: nobody reads on
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (TrainingDiverged, RowsFailed, OSError) as error:
            raise typer.Exit(_say(1, f"{type(error).__name__}: {error}")) from None
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):
                raise  # its own: usage errors and exits
            traceback.print_exc()
            raise typer.Exit(1) from None


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends a command as Ctrl-C does, and neither is lost.

    What is raised inside a ``__del__`` or a weak reference's callback, Python prints and forgets: a
    signal that comes there (seen in the compiling of transformers' patterns) would be without
    effect. So it is raised again a moment later.
    """

    def forgotten(what: "sys.UnraisableHookArgs") -> None:
        if what.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 0.01)
        else:
            show(what)

    show, sys.unraisablehook = sys.unraisablehook, forgotten
    before = {n: signal.signal(n, _interrupt) for n in (signal.SIGTERM, signal.SIGALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = show


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(code: int, text: str) -> int:
    print("cai:", " ".join(text.split("\n")), file=sys.stderr)
    return code


def progress(json: bool) -> "Progress":
    from constitutional_ai.progress import Progress

    return Progress("json" if json else "auto")


def group(text: str) -> typer.Typer:
    """A command with commands of its own, such as ``cai lab``."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)
