"""Kafka and Redis without Docker: real servers as child processes, for the demo, the tests and a first look.

    with start_kafka(directory) as kafka, start_redis(directory) as redis:
        ...  # kafka.bootstrap_servers, redis.url

Both listen on loopback only, on free ports, keep their log in `directory` and end with the process that started them,
however it ends. Not for production: one node, no passwords, and the `tansu` broker keeps its records in memory.
"""

from fraudstream.embedded.kafka_server import BrokerKind, KafkaServer, apache_kafka_unavailable, start_kafka
from fraudstream.embedded.redis_server import RedisServer, start_redis

__all__ = ["BrokerKind", "KafkaServer", "RedisServer", "apache_kafka_unavailable", "start_kafka", "start_redis"]
