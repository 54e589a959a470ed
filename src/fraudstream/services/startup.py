"""From settings to parts that work, or one clear line why not: everything is checked before the first record is read."""

import logging
import time
from dataclasses import dataclass

from fraudstream.adapters import kafka_admin
from fraudstream.adapters.kafka_publisher import KafkaPublisher
from fraudstream.adapters.redis_keys import StoreSettings
from fraudstream.adapters.redis_store import RedisStore
from fraudstream.codec import Limits
from fraudstream.core.features import DAY_MS, FeatureSet
from fraudstream.errors import SettingsError
from fraudstream.models.champion import OnnxModel
from fraudstream.models.registry import Registry
from fraudstream.services.degraded import Guesser
from fraudstream.services.labelling import Labeller
from fraudstream.services.late_labels import LateLabels, open_late_labels
from fraudstream.services.online_parts import OnlineParts
from fraudstream.services.scoring import Scorer
from fraudstream.services.watch_parts import Watching
from fraudstream.settings import LateLabelSettings, RedisSettings, Settings
from fraudstream.topics import Topics

log = logging.getLogger("fraudstream.start")


@dataclass
class Parts:
    """Everything a worker is made of."""

    features: FeatureSet
    model: OnnxModel
    store: RedisStore
    publishers: tuple[KafkaPublisher, ...]
    scorer: Scorer
    labeller: Labeller
    guesser: Guesser | None
    online: OnlineParts
    late_labels: LateLabels | None = None
    watching: Watching | None = None

    def close(self) -> None:
        """Wait for what is under way and give connections back."""
        self.online.close()
        if self.late_labels:
            self.late_labels.close()
        if self.watching:
            self.watching.close()
        for publisher in self.publishers:
            publisher.close()
        self.store.close()


def open_model(settings: Settings) -> tuple[FeatureSet, OnnxModel]:
    """The model the settings name and the feature list it was trained on. Raises `ModelError`."""
    artefact = Registry(settings.model.registry).load(settings.model.name, settings.model.version)
    features = artefact.feature_set()
    return features, OnnxModel(artefact, features)


def open_store(settings: Settings, features: FeatureSet) -> RedisStore:
    """The state store, checked. Raises `StateUnavailable` or `SettingsError`."""
    try:
        store = RedisStore(
            settings.redis.url.get_secret_value(),
            features,
            store_settings(settings.redis, settings.late_labels),
            timeout_s=settings.redis.timeout_s,
        )
    except ValueError:  # its text may quote the password
        raise SettingsError(
            "FRAUDSTREAM_REDIS__URL cannot be read: write redis://:password@host:6379/0 (rediss:// for TLS), with special "
            "characters of the password as %XX"
        ) from None
    store.check()
    return store


def store_settings(redis: RedisSettings, late_labels: LateLabelSettings | None = None) -> StoreSettings:
    """The part of the settings that decides how state is kept."""
    late_labels = late_labels or LateLabelSettings()
    return StoreSettings(
        prefix=redis.prefix,
        retention_ms=redis.decision_retention_days * DAY_MS,
        transactions_per_day=redis.transactions_per_day,
        parked_labels_max=redis.parked_labels_max,
        late_retention_ms=late_labels.retention_days * DAY_MS,
    )


def check_broker(settings: Settings) -> None:
    """Is the broker there, with the topics the roles need? Raises `BrokerUnavailable` or `SettingsError`."""
    topics = settings.topics
    needed = {"score": [topics.transactions, topics.alerts, topics.transactions_dead_letter, topics.model_events]}
    needed["label"] = [topics.labels, topics.labels_dead_letter, topics.examples]
    if settings.late_labels.path:
        needed["label"].append(topics.decisions)
    needed["learn"] = [topics.examples, topics.model_events]
    if settings.publish_decisions:
        needed["score"].append(topics.decisions)
    missing = kafka_admin.missing(settings.kafka.client(), [name for role in settings.roles for name in needed[role]])
    if missing:
        raise SettingsError(f"topics missing: {', '.join(missing)}; create them with: fraudstream topics create")


def build(settings: Settings) -> Parts:
    """Open and check everything. Raises a `FraudstreamError` whose text says what to do."""
    features, champion = open_model(settings)
    log.info(
        "model %s %s, %d features (%s)", champion.name, champion.version, len(features.names), features.digest[:12]
    )
    store = open_store(settings, features)
    check_broker(settings)
    # One for each role: they publish from threads of their own, and a publisher tells one caller what failed.
    connection, timeout_s = settings.kafka.client(), settings.kafka.publish_timeout_s
    score_out, label_out, guess_out = (KafkaPublisher(connection, timeout_s=timeout_s) for _ in range(3))
    online = OnlineParts(settings, champion, features, clock_ms=now_ms)
    model = online.model or champion
    topics = Topics(**settings.topics.model_dump())
    limits = Limits(**settings.limits.model_dump())
    scorer = Scorer(
        features,
        model,
        store,
        score_out,
        clock_ms=now_ms,
        topics=topics,
        limits=limits,
        publish_decisions=settings.publish_decisions,
    )
    late_labels = open_late_labels(settings)
    late = late_labels.indexer if late_labels else None
    labeller = Labeller(features, store, label_out, clock_ms=now_ms, topics=topics, limits=limits, late=late)
    guesser = None
    if settings.on_state_unavailable == "score-degraded":
        guesser = Guesser(
            features,
            model,
            guess_out,
            clock_ms=now_ms,
            topics=topics,
            limits=limits,
            publish_decisions=settings.publish_decisions,
        )
    watching = None
    if "score" in settings.roles:
        watching = Watching(settings, champion, open_store(settings, features), now_ms)
    publishers = score_out, label_out, guess_out
    return Parts(features, champion, store, publishers, scorer, labeller, guesser, online, late_labels, watching)


def now_ms() -> int:
    """The wall clock, in ms since the epoch."""
    return time.time_ns() // 1_000_000
