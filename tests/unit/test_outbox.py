"""Publishing beside deciding."""

import threading

import pytest

from fraudstream.services.outbox import ThreadedOutbox


def test_work_is_done_in_order_beside_the_caller() -> None:
    """What is put is done one after the other in another thread, and all of it before the outbox is left."""
    done: list[tuple[int, int]] = []
    with ThreadedOutbox[int]() as outbox:
        for number in range(5):
            outbox.put(lambda number=number: done.append((number, threading.get_ident())) or number)  # type: ignore[func-returns-value, misc] # append answers None, so the number is the answer
    assert [number for number, _ in done] == outbox.results() == [0, 1, 2, 3, 4]
    (thread,) = {thread for _, thread in done}
    assert thread != threading.get_ident()


def test_nothing_overtakes_what_failed() -> None:
    """After work that raised the rest is left undone, the error is told, and the next round begins anew."""
    done: list[int] = []

    def work(number: int) -> int:
        if number == 1:
            raise ConnectionError("away")
        done.append(number)
        return number

    outbox = ThreadedOutbox[int]()
    with outbox:
        for number in range(4):
            outbox.put(lambda number=number: work(number))  # type: ignore[misc] # mypy cannot infer a lambda with a default
    with pytest.raises(ConnectionError, match="away"):
        outbox.results()
    with outbox:
        outbox.put(lambda: work(7))
    assert (done, outbox.results()) == ([0, 7], [7])
