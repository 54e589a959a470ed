"""When an alarm begins and ends. A check beyond its limit begins one; it ends after a while well inside the limit."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

# At the limit itself a figure goes to and fro: it has to come down to half of it, and stay there for the cool-down.
ENDS_BELOW: Final = 0.5
# Ended alarms that are kept to be looked at.
ENDED_MAX: Final = 100


class Check(Struct, frozen=True):
    """One figure against its limit. `subject` is what it is about, `kind` which figure, `message` the cause in words.

    `informative` checks are told and never alarm. `values` are further figures, for people.
    """

    subject: str
    kind: str
    value: float
    limit: float
    message: str
    values: dict[str, float] = {}
    informative: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.subject}"

    @property
    def ratio(self) -> float:
        """How much of its limit it has used."""
        return self.value / self.limit if self.limit > 0 else 0.0


class Alarm(Struct):
    """One alarm. Times are event times in ms; `beyond_ms` is when it was last beyond half of its limit."""

    subject: str
    kind: str
    began_ms: int
    beyond_ms: int
    value: float
    limit: float
    peak: float
    message: str
    transactions: int = 0
    ended_ms: int | None = None

    @property
    def event_id(self) -> str:
        return f"drift:{self.kind}:{self.subject}:{self.began_ms}"


class AlarmBook(Struct):
    """All alarms: those that last, by the name of their check, and the newest that ended."""

    lasting: dict[str, Alarm] = {}
    ended: list[Alarm] = []

    def judge(self, checks: Sequence[Check], at_ms: int, *, cool_down_ms: int, transactions: int = 0) -> list[Alarm]:
        """Take note of checks at an event time; the alarms that began or ended with it."""
        news: list[Alarm] = []
        for check in checks:
            lasting = self.lasting.get(check.name)
            if lasting is None:
                if (
                    check.value > check.limit
                    and not check.informative
                    and not self._cooling(check, at_ms, cool_down_ms)
                ):
                    alarm = Alarm(
                        check.subject, check.kind, at_ms, at_ms, check.value, check.limit, check.value, check.message,
                        transactions,
                    )  # fmt: skip
                    self.lasting[check.name] = alarm
                    news.append(alarm)
                continue
            lasting.value, lasting.limit, lasting.peak = check.value, check.limit, max(lasting.peak, check.value)
            if check.value > ENDS_BELOW * check.limit:
                lasting.beyond_ms = max(lasting.beyond_ms, at_ms)
            elif at_ms - lasting.beyond_ms >= cool_down_ms:
                lasting.ended_ms = at_ms
                del self.lasting[check.name]
                self.ended = [*self.ended, lasting][-ENDED_MAX:]
                news.append(lasting)
        return news

    def _cooling(self, check: Check, at_ms: int, cool_down_ms: int) -> bool:
        """Did one of the same check end just now?"""
        return any(
            (alarm.kind, alarm.subject) == (check.kind, check.subject)
            and alarm.ended_ms is not None
            and 0 <= at_ms - alarm.ended_ms < cool_down_ms
            for alarm in self.ended
        )
