"""Kafka Connect with Debezium: a MongoDB source and a JDBC sink. The peer of the bench, and a reader that is not ours."""
from __future__ import annotations

from pathlib import Path

from . import java, wire, worker
from .core import Failure, built, cache_root, own_folder, say, spawn, warn
from .service import Service

VERSION = "4.1.1"
DEBEZIUM = "3.4.0.Final"
PLUGINS = ("mongodb", "jdbc")
TOPICS = [f"slackwater-connect-{what}" for what in ("configs", "offsets", "status")]

# With a Jackson of its own the sink does not find the worker's, and fails.
WITHOUT = ("jackson-core", "jackson-databind", "jackson-annotations", "slf4j-api", "slf4j-simple", "slf4j-reload4j")

HEAP = ["-Xms256m", "-Xmx2g"]


class Connect(Service):
    name = "connect"
    variable = "SLACKWATER_CONNECT_URL"
    ports = {"port": ("SLACKWATER_CONNECT_PORT", 18083)}
    default_port_of_protocol = 80
    takes = "about 10 seconds"

    @property
    def tree(self) -> Path:
        return cache_root() / f"connect-{VERSION}-debezium-{DEBEZIUM}"

    @property
    def kafka(self):
        return Service.all["kafka"]

    def brokers(self) -> str:
        return self.kafka.external() or self.kafka.load()["env"][self.kafka.variable]

    def leans_on(self, other: Service) -> bool:
        return other is self.kafka and not other.external() and self.running(self.load())

    def up(self, bare: bool = False) -> None:
        kafka = self.kafka
        if not self.external() and not kafka.external() and not kafka.running(kafka.load()):
            say(self.name, "reads and writes Kafka: that first")
            kafka.up(bare)
        super().up(bare)

    def docker_fits(self) -> bool:  # docker-compose.yml has none; the bare one serves a Kafka in Docker too
        return False

    def prepare(self) -> None:
        java.need_java(self.name)
        with built(self.tree) as folder:
            if folder:
                java.fetch(self.name, f"Kafka Connect {VERSION} (33 MB)",
                           [f"org.apache.kafka:connect-{part}:{VERSION}" for part in ("runtime", "json", "transforms")] +
                           [java.LOGGING], folder)
                for plugin in PLUGINS:
                    java.fetch(self.name, f"Debezium {DEBEZIUM} for {plugin}",
                               [f"io.debezium:debezium-connector-{plugin}:{DEBEZIUM}"], folder / "plugins" / plugin,
                               WITHOUT)

    def launch(self, state: dict):
        own_folder(self.folder)
        config = self.folder / "worker.properties"
        config.write_text(self.properties(state["port"]))
        return spawn(java.command(self.folder, self.tree, HEAP, "org.apache.kafka.connect.cli.ConnectDistributed",
                                  str(config)), self.log, self.folder)

    def properties(self, port: int) -> str:
        configs, offsets, status = TOPICS
        return f"""\
# Written at every start by dev/services.
bootstrap.servers={self.brokers()}
listeners=http://127.0.0.1:{port}
group.id=slackwater-connect
plugin.path={self.tree / 'plugins'}
plugin.discovery=service_load
connector.client.config.override.policy=All
config.storage.topic={configs}
config.storage.replication.factor=1
offset.storage.topic={offsets}
offset.storage.replication.factor=1
offset.storage.partitions=1
status.storage.topic={status}
status.storage.replication.factor=1
status.storage.partitions=1
# There is one worker: nobody else to wait for.
scheduled.rebalance.max.delay.ms=0
# How far a sink is can be asked, and the answer is a second old at most.
offset.flush.interval.ms=1000
key.converter=org.apache.kafka.connect.json.JsonConverter
value.converter=org.apache.kafka.connect.json.JsonConverter
"""

    def probe(self, state: dict) -> str | None:
        try:
            code, said = worker.request(f"http://127.0.0.1:{state['port']}/health")
            return None if code == 200 else str(said.get("message", code))
        except OSError as e:
            return f"no answer yet ({e})"

    def settle(self, state: dict) -> None:
        """A plugin that did not load would show only when it is used."""
        there = worker.Worker(f"http://127.0.0.1:{state['port']}").plugins()
        for wanted in ("io.debezium.connector.mongodb.MongoDbConnector", "io.debezium.connector.jdbc.JdbcSinkConnector"):
            if wanted not in there:
                raise Failure(f"Kafka Connect has not loaded {wanted}",
                              f"remove {self.tree} and run this again", self.log)

    def wipe(self) -> None:
        """Its connectors are kept in topics: without them a worker would find none."""
        kafka = self.kafka
        if kafka.external() or kafka.running(kafka.load()):
            try:
                wire.delete(self.brokers(), TOPICS)
            except (OSError, wire.Refused) as e:
                warn(f"{self.name}: its topics are left behind ({e}): {' '.join(TOPICS)}")
        super().wipe()

    def exports(self, state: dict) -> dict[str, str]:
        return {self.variable: f"http://127.0.0.1:{state['port']}"}
