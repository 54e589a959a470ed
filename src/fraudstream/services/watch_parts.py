"""The watch in a worker: a thread of its own that looks every some seconds, and is in nobody's way."""

import logging
import threading
from collections.abc import Callable

from fraudstream.adapters.kafka_publisher import KafkaPublisher
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.adapters.redis_watch import RedisWatch
from fraudstream.core.watch import Limits
from fraudstream.errors import BrokerUnavailable, StateUnavailable
from fraudstream.models.champion import OnnxModel
from fraudstream.services.health import Health
from fraudstream.services.watching import Watcher
from fraudstream.settings import Settings
from fraudstream.topics import Topics

log = logging.getLogger("fraudstream.watch")


def open_watch_state(settings: Settings) -> RedisWatch:
    """Where the watch keeps its state."""
    redis = settings.redis
    return RedisWatch(redis.url.get_secret_value(), redis.prefix, timeout_s=redis.timeout_s)


class Watching:
    """Looks until it is closed. What is away is waited out: a look less harms nobody, a worker that ends would."""

    def __init__(self, settings: Settings, model: OnnxModel, store: RedisStore, wall_ms: Callable[[], int]) -> None:
        drift = settings.drift
        self._store, self._state = store, open_watch_state(settings)
        self._publisher = KafkaPublisher(settings.kafka.client(), timeout_s=settings.kafka.publish_timeout_s)
        self._every_s = drift.look_every_s
        self._watcher = Watcher(
            (model.name, model.version),
            model.monitor,
            model.reference,
            store,
            state=self._state,
            publisher=self._publisher,
            limits=Limits(drift.alarms_per_month, drift.reject_share_max),
            cool_down_ms=round(drift.cool_down_h * 3_600_000),
            look_every_ms=round(1000 * drift.look_every_s),
            topics=Topics(**settings.topics.model_dump()),
            wall_ms=wall_ms,
        )
        self._stop = threading.Event()
        self._publisher.stopping = self._stop.is_set
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._health: Health | None = None

    def start(self, health: Health) -> None:
        """Begin to look; alarms are counted in the worker's totals."""
        self._health = health
        self._thread.start()

    def close(self) -> None:
        """Stop, and give connections back."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._every_s + 5)
        self._publisher.close()
        self._state.close()
        self._store.close()

    def _run(self) -> None:
        away = False
        while not self._stop.wait(self._every_s):
            try:
                news = self._watcher.look()
            except (StateUnavailable, BrokerUnavailable) as error:
                if not away:
                    log.warning("the watch on drift waits: %s", error)
                away = True
            except Exception:  # a fault of the watch must not end the worker; it is seen in the log and in the totals
                log.exception("the watch on drift failed by a fault of its own")
                self._count("drift_looks_failed", 1)
            else:
                away = False
                self._count("drift_alarms_began", sum(alarm.ended_ms is None for alarm in news))
                self._count("drift_alarms_ended", sum(alarm.ended_ms is not None for alarm in news))

    def _count(self, name: str, more: int) -> None:
        if more and self._health:
            self._health.totals[name] += more
