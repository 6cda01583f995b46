"""Shows on a terminal that long work goes on, and how far it is; elsewhere it says nothing.

Knows nothing of the work. It writes to standard error, so that data on standard output stays clean.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

_T = TypeVar("_T")


class Work:
    """Steps of one command, each with a bar."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    def do(self, name: str, step: Callable[[], _T]) -> _T:
        """Do a step whose length is not known."""
        task = self._bars.add_task(name, total=None)
        result = step()
        self._bars.update(task, total=1, completed=1)
        return result

    def each(self, name: str, parts: Iterable[_T], count: int) -> Iterator[_T]:
        """Yield parts of a known number, and show how many are done."""
        yield from self._bars.track(parts, total=count, description=name)


@contextmanager
def working() -> Iterator[Work]:
    """Bars on a terminal, gone when the work is done."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        yield Work(bars)
