"""The tables of a page on the terminal, by rich."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from constitutional_ai.drawing.page import Table, cell

WIDTH = 160  # of tables in a file or a pipe, where no terminal says


def show(table: Table) -> None:
    """Print a table; the first column to the left, figures to the right."""
    grid = Grid(box=box.SIMPLE, title=table.caption or None, title_justify="left")
    for n, name in enumerate(table.head):
        grid.add_column(name, justify="right" if n else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(cell(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False).print(grid)
