"""Time by hand: polls happen when a test says that time passes, in its own thread."""

from collections.abc import Callable
from dataclasses import dataclass, field

from wattledger_agent.slow import Pace

SECOND = 1_000_000_000


@dataclass
class ByHand:
    """Stands for the thread and the clock of a poller; the first poll is made at once, or not before time passes (is_late).

    now_nanoseconds: the clock; a poll may let time pass by adding to it. pauses: what each step asked for, in seconds.
    """

    now_nanoseconds: int = 1000 * SECOND
    pauses: list[float] = field(default_factory=list)
    running: int = 0
    is_late: bool = False
    _due_nanoseconds: int = 0
    _step: Callable[[], float] | None = None

    @property
    def pace(self) -> Pace:
        """What a source takes."""
        return Pace(self._start, lambda: self.now_nanoseconds)

    def advance(self, seconds: float) -> int:
        """Let time pass, with all polls that fall due meanwhile; returns the time."""
        end = self.now_nanoseconds + round(seconds * SECOND)
        while self._step is not None and self._due_nanoseconds <= end:
            self.now_nanoseconds = max(self.now_nanoseconds, self._due_nanoseconds)
            self._run()
        self.now_nanoseconds = max(self.now_nanoseconds, end)
        return self.now_nanoseconds

    def _start(self, step: Callable[[], float], farewell: Callable[[], None], name: str) -> Callable[[], None]:
        self._step = step
        self.running += 1
        self._due_nanoseconds = self.now_nanoseconds
        if not self.is_late:
            self._run()

        def stop() -> None:
            self._step = None
            self.running -= 1
            farewell()

        return stop

    def _run(self) -> None:
        assert self._step is not None
        pause = self._step()
        self.pauses.append(pause)
        self._due_nanoseconds = self.now_nanoseconds + round(pause * SECOND)
