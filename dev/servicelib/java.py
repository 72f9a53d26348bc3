"""Java, and what Maven brings for it."""
from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from .core import IS_ROOT, Failure, apt_install, output, run_long, state_root

# Everything, less two loggers that print every setting of every client.
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
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"  # without it Kafka logs nothing


def java() -> str | None:
    """A Java that is new enough, if there is one."""
    home = os.environ.get("JAVA_HOME")
    for program in ([str(Path(home) / "bin" / "java")] if home else []) + ["java"]:
        code, text = output([program, "-version"])
        number = re.search(r'version "(\d+)', text)
        if code == 0 and number and int(number.group(1)) >= 17:
            return program
    return None


def need_java(who: str) -> None:
    if java():
        return
    code, text = output(["apt-cache", "search", "--names-only", "^openjdk-17-jre-headless$"])
    package = "openjdk-17-jre-headless" if code != 0 or text or not IS_ROOT else "default-jre-headless"
    apt_install(who, [package], "Kafka needs Java 17 or later")
    if not java():
        raise Failure("there is still no Java 17 or later", "install one and set JAVA_HOME")


def fetch(who: str, what: str, libraries: list[str], folder: Path, without: tuple[str, ...] = ()) -> None:
    """Has Maven copy libraries (group:name:version), and what they lean on at run time, into `folder`/lib."""
    if not shutil.which("mvn"):
        apt_install(who, ["maven"], "Maven is not there; it brings Kafka")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pom.xml").write_text(pom(who, libraries))
    run_long(who, f"downloading {what} with Maven",
             ["mvn", "-B", "-U", "-ntp", "-f", str(folder / "pom.xml"), "dependency:copy-dependencies",
              "-DincludeScope=runtime", f"-DoutputDirectory={folder / 'lib'}",
              *([f"-DexcludeArtifactIds={','.join(without)}"] if without else [])],
             state_root() / "logs" / f"{who}-download.log",
             hint="is Maven Central in reach, by way of Maven's own settings?")


def pom(name: str, libraries: list[str]) -> str:
    lines = []
    for library in libraries:
        group, artifact, version = library.split(":")
        lines.append(f"    <dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
                     f"<version>{version}</version></dependency>")
    return "\n".join(["<project>", "  <modelVersion>4.0.0</modelVersion>", "  <groupId>slackwater.dev</groupId>",
                      f"  <artifactId>{name}</artifactId>", "  <version>1</version>", "  <packaging>pom</packaging>",
                      "  <dependencies>", *lines, "  </dependencies>", "</project>", ""])


def command(folder: Path, libraries: Path, heap: list[str], main: str, *args: str) -> list[str]:
    """How a program is started that logs as `folder`/log4j2.xml says."""
    (folder / "log4j2.xml").write_text(LOG4J)
    return [java() or "java", *heap, f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}",
            "-cp", str(libraries / "lib" / "*"), main, *args]
