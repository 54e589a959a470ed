"""Two Apache Kafka brokers from the same jars, so that partitions can change their leader."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import ElectionType
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from fraudstream.embedded import KafkaServer, apache_kafka
from fraudstream.embedded.process import ChildProcess, free_ports
from tests.support.waiting import wait_until

# Everything on both nodes, the groups' offsets as well; one of them is enough to go on.
_BOTH = {
    "default.replication.factor": 2,
    "offsets.topic.replication.factor": 2,
    "transaction.state.log.replication.factor": 2,
    "min.insync.replicas": 1,
    # A follower that is gone holds every write up until it is dropped from the replicas in sync; 30 s by default.
    "replica.lag.time.max.ms": 3000,
}


class Cluster:
    """`first` is controller and broker, `second` a broker that may come and go."""

    def __init__(self, first: KafkaServer, second: KafkaServer) -> None:
        self.first = first
        self.second = second
        self.bootstrap_servers = f"{first.bootstrap_servers},{second.bootstrap_servers}"
        self._admin = AdminClient({"bootstrap.servers": first.bootstrap_servers, "log_level": 0})

    def create_topics(self, names: list[str], partitions: int) -> None:
        """Topics with replicas on both nodes and leaders on either."""
        config = {"retention.ms": "-1"}
        wanted = [NewTopic(name, partitions, 2, config=config) for name in names]
        for created in self._admin.create_topics(wanted).values():
            created.result(30)

    def leaders(self, topic: str) -> set[int]:
        """The nodes that lead a partition of the topic; -1 stands for none."""
        found = self._admin.list_topics(topic, timeout=10).topics[topic].partitions.values()
        return {partition.leader for partition in found}

    def lead_as_preferred(self, topic: str) -> None:
        """Give the partitions back to their first replicas, as soon as both nodes have all of them."""

        def in_sync() -> bool:
            found = self._admin.list_topics(topic, timeout=10).topics[topic].partitions.values()
            return all(len(partition.isrs) == 2 for partition in found)

        wait_until(in_sync, 60, "the replicas are in sync")
        self._admin.elect_leaders(ElectionType.PREFERRED).result(30)
        wait_until(lambda: self.leaders(topic) == {1, 2}, 60, "both nodes lead")


@contextlib.contextmanager
def kafka_cluster(directory: Path) -> Iterator[Cluster]:
    """A running cluster. Raises `BrokerUnavailable` where Apache Kafka cannot be started."""
    jars = apache_kafka.fetch_jars(lambda line: None)
    cluster_id = apache_kafka.cluster_id()
    controller_port, *ports = free_ports(3)
    with contextlib.ExitStack() as stack:
        nodes = []
        for number, port in enumerate(ports, start=1):
            home = directory / f"node-{number}"
            home.mkdir(parents=True)
            of_node: dict[str, object] = {}
            if number > 1:
                listener = f"CLIENT://127.0.0.1:{port}"
                of_node = {"node.id": number, "process.roles": "broker", "listeners": listener}
            command = apache_kafka.prepare(
                home, jars, port=port, controller_port=controller_port, new_cluster_id=cluster_id,
                overrides=_BOTH | of_node,
            )  # fmt: skip
            process = ChildProcess(command, log_path=home / "kafka.log", directory=home)
            nodes.append(KafkaServer(process, kind="apache", port=port, cluster_id=cluster_id))
            stack.enter_context(nodes[-1])
            nodes[-1].restart()
        yield Cluster(*nodes)
