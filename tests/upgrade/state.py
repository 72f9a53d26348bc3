"""What a migration's control schema says, of version 4 or of a later one, and what an upgrade has to leave as it was."""
from __future__ import annotations

import re

MIGRATION = "crm-demo"
# The names of lanes: those of version 4, and those since version 5, which carry the source's name.
STREAM = re.compile(r"stream|capture/[^/]+/stream")
COPY = re.compile(r"copy/\d+|capture/[^/]+/copy/\d+")
OLD_NAME = re.compile(r"stream|copy/\d+|capture")

READ = f"""
SELECT json_build_object(
    'version', (SELECT max(version) FROM slackwater.schema_version),
    'epoch', (SELECT max(epoch) FROM {{epochs}}),
    'collections', (SELECT json_agg(c) FROM slackwater.collections c WHERE migration = '{MIGRATION}'),
    'chunks', (SELECT json_agg(c) FROM slackwater.chunks c WHERE migration = '{MIGRATION}'),
    'lanes', (SELECT json_agg(l) FROM slackwater.lanes l WHERE migration = '{MIGRATION}'),
    'positions', (SELECT json_agg(p) FROM slackwater.positions p WHERE migration = '{MIGRATION}'),
    'log_partitions', (SELECT json_agg(p) FROM slackwater.log_partitions p WHERE migration = '{MIGRATION}'),
    'partitions', (SELECT json_agg(p) FROM slackwater.partitions p WHERE migration = '{MIGRATION}'),
    'incidents', (SELECT json_agg(i ORDER BY id) FROM slackwater.incidents i WHERE migration = '{MIGRATION}'),
    'seen', (SELECT count(*) FROM pg_class WHERE relnamespace = 'slackwater'::regnamespace AND relkind = 'r'
             AND relname ~ '^seen_[0-9]+$'))"""
EPOCHS = {False: f"slackwater.migrations WHERE name = '{MIGRATION}'",
          True: f"slackwater.captures WHERE migration = '{MIGRATION}'"}


class State:
    """One reading of the control schema."""

    def __init__(self, read: dict):
        self.version, self.epoch, self.seen = read["version"], read["epoch"], read["seen"]
        self.incidents = read["incidents"] or []
        self.collections = {row["collection"]: row for row in read["collections"] or []}
        self.chunks = {row["id"]: row for row in read["chunks"] or []}
        self.lanes = {row["lane"]: row for row in read["lanes"] or []}
        self.positions = {row["source"]: row for row in read["positions"] or []}
        self.log = {(row["topic"], row["partition"]): row for row in read["log_partitions"] or []}
        self.partitions = {(row["topic"], row["partition"]): row for row in read["partitions"] or []}

    def done(self) -> list[dict]:
        return [chunk for chunk in self.chunks.values() if chunk["done"]]

    def open(self, collection: str | None = None) -> list[dict]:
        return [chunk for chunk in self.chunks.values()
                if not chunk["done"] and collection in (None, chunk["collection"])]

    def documents(self) -> int:
        return sum(chunk["documents"] for chunk in self.done())

    def copied(self) -> bool:
        return len(self.collections) == 5 and all(row["state"] == "copied" and not row["reload"]
                                                  for row in self.collections.values())

    def named(self, pattern: re.Pattern) -> list[dict]:
        return [row for name, row in self.lanes.items() if pattern.fullmatch(name)]

    def stream(self) -> dict:
        """The lane of the stream, where the log is direct."""
        rows = self.named(STREAM)
        if len(rows) != 1:
            raise ValueError(f"one lane of the stream was expected: {sorted(self.lanes)}")
        return rows[0]

    def events(self) -> int:
        """Events of the stream that are applied."""
        if self.partitions:
            return sum(row["events"] for row in self.partitions.values())
        return self.stream()["events"]


def broken(before: State, after: State) -> list[str]:
    """What an upgrade has not left as it was."""
    found: list[str] = []

    def want(holds: bool, text: str) -> None:
        if not holds:
            found.append(text)

    want(after.version >= before.version, f"schema version {before.version} became {after.version}")
    want(after.epoch > before.epoch, f"epoch {before.epoch} became {after.epoch}: who wrote before is not locked out")
    # History lost, a topic cut: an upgrade brings none of it. A recopy that was under way says how it ended.
    anew = any(row["reload"] for row in before.collections.values())
    new = [i for i in after.incidents[len(before.incidents):] if not (anew and i["kind"] == "recopied")]
    want(not new, f"incidents: {[i['text'] for i in new]}")
    for name, was in before.collections.items():
        now = after.collections.get(name)
        if now is None:
            found.append(f"{name}: what is known of its copy is gone")
            continue
        want(now["generation"] == was["generation"], f"{name}: copy {was['generation']} became {now['generation']}")
        want(now["started_at"] == was["started_at"] or was["state"] == "pending", f"{name}: its copy was started again")
        if was["state"] == "copied":
            want(now["state"] == "copied" and now["finished_at"] == was["finished_at"], f"{name}: it was copied again")
    for chunk in before.done():
        now = after.chunks.get(chunk["id"])
        if now is None:
            found.append(f"chunk {chunk['id']} of {chunk['collection']} was done and is gone")
        else:
            want(all(now[key] == chunk[key] for key in ("done", "documents", "reads", "lo", "hi", "generation")),
                 f"chunk {chunk['id']} of {chunk['collection']} was done and is now {now}")
    if before.partitions:
        want(before.log.keys() == after.log.keys(), "the partitions that count are others")
        for key, was in before.log.items():
            now = after.log.get(key, was)
            want(now["begin_offset"] == was["begin_offset"], f"{key}: it was registered again")
            want((now["acked_offset"] or -1) >= (was["acked_offset"] or -1), f"{key}: acknowledged offset went back")
        for key, was in before.partitions.items():
            now = after.partitions.get(key)
            if now is None:
                found.append(f"{key}: how far it is applied is gone")
                continue
            for column in ("next_offset", "events", "duplicates", "superseded", "epoch", "capture_epoch"):
                want(now[column] >= was[column], f"{key}: {column} {was[column]} became {now[column]}")
            want(now["lost"] is None, f"{key}: lost: {now['lost']}")
        for source, was in before.positions.items():
            now = after.positions.get(source)
            want(now is not None and now["position_time"] >= was["position_time"], f"{source}: its position went back")
    else:
        was, now = before.stream(), after.stream()
        for column in ("sequence", "events", "rows_written", "position_time", "applied_through", "as_of"):
            want((now[column] or 0) >= (was[column] or 0), f"stream: {column} {was[column]} became {now[column]}")
        want(len(after.named(COPY)) == len(before.named(COPY)), "the lanes of the copy are others")
        for column in ("sequence", "rows_written"):
            was, now = (sum(row[column] for row in state.named(COPY)) for state in (before, after))
            want(now >= was, f"copy lanes: {column} {was} became {now}")
    if after.version >= 5:
        left = sorted(name for name in after.lanes if OLD_NAME.fullmatch(name))
        want(not left, f"lanes still have their old names: {left}")
    return found
