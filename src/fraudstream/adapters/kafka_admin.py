"""Asking the broker: is it there, do the topics exist; and creating them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from fraudstream.errors import BrokerUnavailable, SettingsError

ANSWER_S_MAX: Final = 10.0


def partitions(connection: Mapping[str, Any], *, timeout_s: float = ANSWER_S_MAX) -> dict[str, int]:
    """Every topic of the cluster and its number of partitions. Raises `BrokerUnavailable`."""
    where = connection.get("bootstrap.servers")
    admin = _admin(connection)
    try:
        found = admin.list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise BrokerUnavailable(f"Kafka at {where} does not answer within {timeout_s:g} s: {_reason(error)}") from error
    return {name: len(topic.partitions) for name, topic in found.topics.items()}


def create(
    connection: Mapping[str, Any],
    topics: Mapping[str, tuple[int, Mapping[str, str]]],
    *,
    replication: int = 1,
    timeout_s: float = ANSWER_S_MAX,
) -> list[str]:
    """Create those of the topics (name: partitions, configuration) that do not exist; their names.

    Raises `BrokerUnavailable` if the broker refuses one.
    """
    present = partitions(connection, timeout_s=timeout_s)
    wanted = [
        NewTopic(name, num_partitions=count, replication_factor=replication, config=dict(config))
        for name, (count, config) in topics.items()
        if name not in present
    ]
    if not wanted:
        return []
    admin = _admin(connection)  # has to outlive the futures it gives out
    created = []
    for name, future in admin.create_topics(wanted).items():
        try:
            future.result(timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise BrokerUnavailable(f"topic {name} could not be created: {error.args[0].str()}") from error
        except TimeoutError as error:
            raise BrokerUnavailable(f"topic {name} was not created within {timeout_s:g} s") from error
        else:
            created.append(name)
    return created


def _admin(connection: Mapping[str, Any]) -> AdminClient:
    try:
        return AdminClient({**connection, "log_level": 0})
    except KafkaException as error:
        raise SettingsError(f"FRAUDSTREAM_KAFKA__*: the client refuses these settings: {_reason(error)}") from error


def _reason(error: KafkaException) -> str:
    first = error.args[0] if error.args else error
    return str(first.str()) if isinstance(first, KafkaError) else str(first)


def missing(connection: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Those of the topics that do not exist."""
    present = partitions(connection)
    return [name for name in names if name not in present]
