"""Does several things one after the other in a helper thread, and leaves behind one that hangs.

A source that asks several devices through one driver must not lose them all because one does not answer. Reads no clock; the
waiting is the operating system's. Nothing can end a thread that a driver holds: it stays behind until it is let go.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from wattledger_agent.threads import NoThreadError, start

Result = TypeVar("Result")


class Lanes(Generic[Result]):
    """Runs tasks by name. patience_seconds: after one to two times as long the others go on without one that hangs;
    may be set before each run.

    There are never more threads than names and one: a task that hangs is not begun again.
    """

    def __init__(self, name: str, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        self._name = name
        self._helper: _Helper[Result] | None = None
        self._hanging: set[str] = set()
        self._late: dict[str, Result] = {}
        self._lock = threading.Lock()

    @property
    def hanging(self) -> frozenset[str]:
        """Names of the tasks that have not returned."""
        with self._lock:
            return frozenset(self._hanging)

    @property
    def late(self) -> frozenset[str]:
        """Names of the tasks that have returned after they were left behind; their answers wait for the next run."""
        with self._lock:
            return frozenset(self._late)

    def run(self, tasks: Mapping[str, Callable[[], Result]]) -> dict[str, Result | None]:
        """Do the tasks in their order; returns by name what each returned, None for one that hangs.

        What a task returned after it was left behind is its result in the next run, in which it is not begun. Raises what a
        task raises, after the others were done; NoThreadError where none can be started, and what was late stays for later.
        """
        results: dict[str, Result | None] = dict.fromkeys(tasks)
        with self._lock:
            for name in tasks.keys() & self._late.keys():
                results[name] = self._late.pop(name)
            begun = [name for name in tasks if name not in self._hanging and results[name] is None]
        work = _Work([(name, tasks[name]) for name in begun], self._returned_late)
        try:
            self._finish(work)
        except NoThreadError:
            with self._lock:
                self._late |= {name: late for name, late in results.items() if late is not None}
            raise
        results |= work.results
        for error in work.errors:
            raise error
        return results

    def close(self) -> None:
        """Let the helper end, and forget answers that nobody asked for since."""
        if self._helper is not None:
            self._helper.end()
        self._helper = None
        with self._lock:
            self._late.clear()

    def _finish(self, work: "_Work[Result]") -> None:
        """Do what there is to do, each in time, and leave behind what hangs."""
        self._begin(work)
        while not work.wait(self.patience_seconds):
            with self._lock:
                left = work.leave_behind()
                if left is None:
                    continue
                self._hanging.add(left)
            self._helper = None
            self._begin(work)

    def _begin(self, work: "_Work[Result]") -> None:
        if self._helper is None:
            self._helper = _Helper(self._name)
        self._helper.do(work)

    def _returned_late(self, name: str, result: Result | None) -> None:
        with self._lock:
            self._hanging.discard(name)
            if result is not None:
                self._late[name] = result


class _Work(Generic[Result]):
    """The tasks of one run, and how far they are. owner: changes when what runs now is left behind."""

    def __init__(
        self,
        tasks: list[tuple[str, Callable[[], Result]]],
        returned_late: Callable[[str, Result | None], None],
    ) -> None:
        self.results: dict[str, Result | None] = {}
        self.errors: list[Exception] = []
        self._tasks = tasks
        self._returned_late = returned_late
        self._lock = threading.Lock()
        self._next = 0
        self._seen = -1
        self._owner = 0
        self._finished = threading.Event()

    def wait(self, seconds: float) -> bool:
        """Wait until all is done, for so long at most."""
        return self._finished.wait(seconds)

    def leave_behind(self) -> str | None:
        """Go on without the task that runs, and return its name; None if the last wait saw another one run."""
        with self._lock:
            if self._finished.is_set() or self._next != self._seen:
                self._seen = self._next
                return None
            name = self._tasks[self._next][0]
            self.results[name] = None
            self._next += 1
            self._owner += 1
            return name

    def go_on(self) -> bool:
        """Do what is left, in the calling thread; False if that was left behind."""
        with self._lock:
            me = self._owner
        while True:
            with self._lock:
                if self._next == len(self._tasks):
                    self._finished.set()
                    return True
                name, task = self._tasks[self._next]
            result: Result | None = None
            error: Exception | None = None
            try:
                result = task()
            except Exception as caught:
                # Whatever a driver's binding raises, the other tasks are done first.
                error = caught
            with self._lock:
                is_left_behind = self._owner != me
                if not is_left_behind:
                    self.results[name] = result
                    self.errors += [error] if error is not None else []
                    self._next += 1
            if is_left_behind:
                self._returned_late(name, result)
                return False


class _Helper(Generic[Result]):
    """A thread that does work after work, until it is told to end or finds that it was left behind."""

    def __init__(self, name: str) -> None:
        self._wanted = threading.Semaphore(0)
        self._work: _Work[Result] | None = None
        start(self._run, name)

    def do(self, work: _Work[Result]) -> None:
        """Begin the work."""
        self._work = work
        self._wanted.release()

    def end(self) -> None:
        """End after what runs now."""
        self._work = None
        self._wanted.release()

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            work, self._work = self._work, None
            if work is None or not work.go_on():
                return
