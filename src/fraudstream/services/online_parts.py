"""What a worker needs for the online model, by its roles: the learner, or a model that is watched, or both."""

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING

from fraudstream.adapters.kafka_publisher import KafkaPublisher
from fraudstream.adapters.redis_learner import RedisLearnerStore
from fraudstream.core.features import FeatureSet
from fraudstream.core.learning import GuardLimits
from fraudstream.core.ports import Model
from fraudstream.services.judging import Judge
from fraudstream.services.online import BlendedModel, Evaluate, LoadAny, OnlineWatch
from fraudstream.settings import LearnSettings, Settings
from fraudstream.topics import Topics

if TYPE_CHECKING:  # these load river, which only a worker that learns needs
    from fraudstream.models.learner import LearnerSettings
    from fraudstream.services.learning import Learner


class OnlineParts:
    """`learner` for the role `learn`, `model` for a scorer whose policy is not `champion`; None where not needed.

    Every worker of that role may have to learn, and one does. So the learner is made when it is first called for: river
    takes 80 MB and a second of CPU, which the others are spared.
    """

    def __init__(
        self, settings: Settings, champion: Model, features: FeatureSet, *, clock_ms: Callable[[], int]
    ) -> None:
        self.publishers: list[KafkaPublisher] = []
        self.learner: Callable[[], Learner] | None = None
        self.model: BlendedModel | None = None
        self._watch: OnlineWatch | None = None
        self._stores: list[RedisLearnerStore] = []
        if "score" in settings.roles and settings.learn.policy != "champion":
            self.model = BlendedModel(champion, settings.learn.policy)
            self._watch = OnlineWatch(self._store(settings), self.model, load_any(settings.learn, features))
        if "learn" in settings.roles:
            out = KafkaPublisher(settings.kafka.client(), timeout_s=settings.kafka.publish_timeout_s)
            self.publishers.append(out)
            self.learner = cache(
                partial(
                    _learner,
                    settings,
                    champion,
                    features.names,
                    store=self._store(settings),
                    publisher=out,
                    clock_ms=clock_ms,
                )
            )
            if settings.learn.classifier:
                self.learner()  # what is wrong with it is told at the start

    def start(self) -> None:
        """Begin to watch for newer models."""
        if self._watch is not None:
            self._watch.start()

    def close(self) -> None:
        """End the watch, wait for what is under way, give connections back."""
        if self._watch is not None:
            self._watch.close()
        for publisher in self.publishers:
            publisher.close()
        for store in self._stores:
            store.close()

    def _store(self, settings: Settings) -> RedisLearnerStore:
        """One each: the watch and the learner call from threads of their own."""
        store = open_learner_store(settings)
        self._stores.append(store)
        return store


def _learner(
    settings: Settings,
    champion: Model,
    names: tuple[str, ...],
    *,
    store: RedisLearnerStore,
    publisher: KafkaPublisher,
    clock_ms: Callable[[], int],
) -> "Learner":
    from fraudstream.models.learner import Subject  # noqa: PLC0415 - see above
    from fraudstream.services.learning import Learner  # noqa: PLC0415 - see above

    return Learner(
        Subject(champion.name, champion.version, champion.features_digest, names),
        learner_settings(settings.learn),
        store,
        publisher,
        clock_ms=clock_ms,
        topics=Topics(**settings.topics.model_dump()),
        judge=Judge({f"{champion.name} {champion.version}": (champion.review_threshold, champion.block_threshold)}),
    )


def open_learner_store(settings: Settings) -> RedisLearnerStore:
    """The learner's state. The state store has checked the URL and the server."""
    redis = settings.redis
    return RedisLearnerStore(
        redis.url.get_secret_value(),
        prefix=redis.prefix,
        transactions_per_day=redis.transactions_per_day,
        timeout_s=redis.timeout_s,
    )


def learner_settings(learn: LearnSettings) -> "LearnerSettings":
    """The part of the settings that decides how is learned."""
    from fraudstream.models.learner import LearnerSettings  # noqa: PLC0415 - see above

    return LearnerSettings(
        classifier=learn.classifier or None,
        params=learn.params,
        pickle_key=learn.pickle_key.get_secret_value().encode(),
        learning_rate=learn.learning_rate,
        l2=learn.l2,
        warm_up=learn.warm_up,
        legit_share=learn.legit_share,
        blend_memory=learn.blend_memory,
        guard=GuardLimits(learn.fraud_share_min, learn.fraud_share_max, learn.guard_memory, learn.examples_per_day_max),
    )


def load_any(learn: LearnSettings, features: FeatureSet) -> LoadAny | None:
    """How a scorer makes a model of a signed pickle; None where the default classifier needs none."""
    if not learn.classifier:
        return None

    def load(dump: bytes) -> Evaluate:
        from fraudstream.models.online import AnyRiver, one_by_one  # noqa: PLC0415 - see above

        model = AnyRiver(learn.classifier, learn.params, learn.pickle_key.get_secret_value().encode())
        model.load(dump)
        return one_by_one(model, features.names)

    return load
