"""Kafka 4.1: one node that is broker and controller (KRaft)."""
from __future__ import annotations

import base64
import shutil
import time
import uuid
from pathlib import Path

from . import java, wire
from .core import Failure, built, cache_root, own_folder, run_long, spawn
from .service import Service

VERSION = "4.1.0"

HEAP = ["-Xms256m", "-Xmx512m"]


class Kafka(Service):
    name = "kafka"
    variable = "SLACKWATER_KAFKA_BROKERS"
    ports = {"port": ("SLACKWATER_KAFKA_PORT", 29092),
             "controller_port": ("SLACKWATER_KAFKA_CONTROLLER_PORT", 29093)}
    default_port_of_protocol = 9092
    takes = "about 5 seconds"

    @property
    def lib(self) -> Path:
        return cache_root() / f"kafka-{VERSION}"

    def tools(self) -> dict[str, str]:
        folder = self.lib / "lib"
        return {"SLACKWATER_KAFKA_LIB": str(folder)} if folder.is_dir() else {}

    def prepare(self) -> None:
        java.need_java(self.name)
        with built(self.lib) as folder:
            if folder:
                java.fetch(self.name, f"Kafka {VERSION} (43 MB, ten seconds or a minute)",
                           [f"org.apache.kafka:kafka_2.13:{VERSION}", java.LOGGING], folder)

    def java_command(self, main: str, *args: str, heap: list[str] = HEAP) -> list[str]:
        return java.command(self.folder, self.lib, heap, main, *args)

    def launch(self, state: dict):
        own_folder(self.folder)
        data, config = self.folder / "data", self.folder / "server.properties"
        config.write_text(self.properties(state["port"], state["controller_port"], data))
        if not (data / "meta.properties").exists():
            shutil.rmtree(data, ignore_errors=True)
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            while cluster.startswith("-"):  # would be taken for an option
                cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            run_long(self.name, "making a data folder (2 seconds)",
                     self.java_command("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config),
                                       heap=["-Xmx128m"]), self.folder / "format.log", cwd=self.folder)
        return spawn(self.java_command("kafka.Kafka", str(config)), self.log, self.folder)

    @staticmethod
    def properties(port: int, controller: int, data: Path) -> str:
        return f"""\
# Written at every start by dev/services.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""

    def probe(self, state: dict) -> str | None:
        try:
            return None if wire.cluster(f"127.0.0.1:{state['port']}").brokers else "no broker is registered yet"
        except (OSError, wire.Refused) as e:
            return f"no answer yet ({e})"

    def settle(self, state: dict) -> None:
        until = time.monotonic() + 60
        while state["how"] == "docker" and (lacks := self.probe(state)):  # its health is no more than an open port
            if time.monotonic() > until:
                raise Failure(f"kafka: {lacks}", "see: docker compose logs kafka")
            time.sleep(0.2)

    def exports(self, state: dict) -> dict[str, str]:
        return {self.variable: f"127.0.0.1:{state['port']}"}
