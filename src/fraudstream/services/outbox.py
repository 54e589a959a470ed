"""Publishing beside deciding: batches that are committed go out one after the other while the next ones are decided."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

R = TypeVar("R")


class Outbox(Protocol, Generic[R]):
    """Takes work in order, between `__enter__` and `__exit__`, which waits until nothing is under way.

    After work that raised, the rest is left undone: nothing overtakes what failed.
    """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None: ...

    def put(self, work: Callable[[], R]) -> None:
        """Do this next."""

    def results(self) -> list[R]:
        """What the work since `__enter__` answered, in order. Raises what the first that failed raised."""


class ThreadedOutbox(Generic[R]):
    """Does the work in one thread of its own, which is started when it is first needed.

    >>> with ThreadedOutbox[int]() as outbox:
    ...     for number in (1, 2, 3):
    ...         outbox.put(lambda number=number: 10 * number)
    >>> outbox.results()
    [10, 20, 30]
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._work: list[Future[R | None]] = []
        self._failed = False

    def __enter__(self) -> Self:
        self._work, self._failed = [], False
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        wait(self._work)

    def put(self, work: Callable[[], R]) -> None:
        self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="publish")
        self._work.append(self._thread.submit(self._next, work))

    def results(self) -> list[R]:
        return [answer for answer in [future.result() for future in self._work] if answer is not None]

    def _next(self, work: Callable[[], R]) -> R | None:
        if self._failed:
            return None
        try:
            return work()
        except BaseException:
            self._failed = True
            raise
