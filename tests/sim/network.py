"""A simulated network as gRPC shows it: a stream is in order or broken; loss, repeats and reordering arise over reconnects.

A stalled stream takes what is sent and delivers nothing until it breaks: only a deadline finds it.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

SECOND = 1_000_000_000
LINGER_SECONDS_MAX = 40  # Longer than an agent's back-off, so that old words meet the new stream's.
Message = TypeVar("Message")


@dataclass(slots=True)
class Pipe(Generic[Message]):
    """One direction of a stream. Of what waits when it breaks, a part may still arrive: a zombie's last words."""

    rng: random.Random
    waiting: deque[tuple[int, Message]] = field(default_factory=deque)
    stalled: bool = False
    broken: bool = False
    last_due: int = 0

    def send(self, message: Message, now: int) -> None:
        """Put a message on its way; it arrives in order, after a random delay."""
        if self.broken:
            return
        due = max(self.last_due, now + self.rng.randrange(SECOND // 1000, SECOND // 4))
        self.last_due = due
        self.waiting.append((due, message))

    def delay(self, nanoseconds: int) -> None:
        """What is on its way, and all that follows, takes longer."""
        self.waiting = deque((due + nanoseconds, message) for due, message in self.waiting)
        self.last_due += nanoseconds

    def due(self, now: int) -> Message | None:
        """The next message that has arrived, if any."""
        if self.stalled or not self.waiting or self.waiting[0][0] > now:
            return None
        return self.waiting.popleft()[1]

    def break_off(self) -> None:
        """Nothing more can be sent; of what waits, a random part still arrives, some of it much later: a zombie's words."""
        if self.broken:
            return
        self.broken = True
        keep = self.rng.randrange(len(self.waiting) + 1)
        while len(self.waiting) > keep:
            self.waiting.pop()
        late = self.rng.choice((0, 0, LINGER_SECONDS_MAX)) * self.rng.randrange(SECOND)
        self.waiting = deque((due + late, message) for due, message in self.waiting)
