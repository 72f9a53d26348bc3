"""Kafka 4.1: one node that is broker and controller (KRaft)."""
from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import struct
import time
import uuid
from pathlib import Path

from .core import IS_ROOT, Failure, apt_install, built, cache_root, output, own_folder, run_long, spawn, state_root
from .service import Service

VERSION = "4.1.0"

POM = f"""\
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>slackwater.dev</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <!-- without it the server logs nothing -->
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
  </dependencies>
</project>
"""

LOG4J = """\
<Configuration status="WARN">
  <Appenders>
    <Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console>
  </Appenders>
  <Loggers>
    <Logger name="org.apache.kafka.common.config" level="WARN"/>
    <Logger name="kafka.server.KafkaConfig" level="WARN"/>
    <Root level="INFO"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""

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

    def java(self) -> str | None:
        """A Java that is new enough, if there is one."""
        home = os.environ.get("JAVA_HOME")
        for java in ([str(Path(home) / "bin" / "java")] if home else []) + ["java"]:
            code, text = output([java, "-version"])
            number = re.search(r'version "(\d+)', text)
            if code == 0 and number and int(number.group(1)) >= 17:
                return java
        return None

    def prepare(self) -> None:
        if not self.java():
            code, text = output(["apt-cache", "search", "--names-only", "^openjdk-17-jre-headless$"])
            package = "openjdk-17-jre-headless" if code != 0 or text or not IS_ROOT else "default-jre-headless"
            apt_install(self.name, [package], "Kafka needs Java 17 or later")
            if not self.java():
                raise Failure("there is still no Java 17 or later", "install one and set JAVA_HOME")
        with built(self.lib) as folder:
            if folder is None:
                return
            if not shutil.which("mvn"):
                apt_install(self.name, ["maven"], "Maven is not there; it brings Kafka")
            (folder / "pom.xml").write_text(POM)
            run_long(self.name, f"downloading Kafka {VERSION} with Maven (43 MB, ten seconds or a minute)",
                     ["mvn", "-B", "-U", "-ntp", "-f", str(folder / "pom.xml"), "dependency:copy-dependencies",
                      f"-DoutputDirectory={folder / 'lib'}"], state_root() / "logs" / "kafka-download.log",
                     hint="is Maven Central in reach, by way of Maven's own settings?")

    def java_command(self, main: str, *args: str, heap: list[str] = HEAP) -> list[str]:
        return [self.java() or "java", *heap, f"-Dlog4j2.configurationFile={self.folder / 'log4j2.xml'}",
                "-cp", str(self.lib / "lib" / "*"), main, *args]

    def launch(self, state: dict):
        own_folder(self.folder)
        data, config = self.folder / "data", self.folder / "server.properties"
        (self.folder / "log4j2.xml").write_text(LOG4J)
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
            return None if brokers(state["port"]) else "no broker is registered yet"
        except (OSError, ValueError, struct.error) as e:
            return f"no answer yet ({e})"

    def settle(self, state: dict) -> None:
        until = time.monotonic() + 60
        while state["how"] == "docker" and (lacks := self.probe(state)):  # its health is no more than an open port
            if time.monotonic() > until:
                raise Failure(f"kafka: {lacks}", "see: docker compose logs kafka")
            time.sleep(0.2)

    def exports(self, state: dict) -> dict[str, str]:
        return {self.variable: f"127.0.0.1:{state['port']}"}


def brokers(port: int) -> int:
    """How many brokers the cluster counts: a Metadata request (version 1, no topics) answers it."""
    client = b"slackwater"
    body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
    with socket.create_connection(("127.0.0.1", port), 3) as s:
        s.sendall(struct.pack(">i", len(body)) + body)
        answer = b""
        while len(answer) < 12:
            part = s.recv(4096)
            if not part:
                raise ValueError("connection closed")
            answer += part
    _, correlation, count = struct.unpack_from(">iii", answer)
    if correlation != 1:
        raise ValueError("not a Kafka broker")
    return count
