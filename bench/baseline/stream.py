#!/usr/bin/env python3
"""What a team would write otherwise: a change stream into Postgres, 1 000 events a transaction.

Resumes from the token it kept in Postgres, or starts at the operation time it is given; stops after so many events.
The last event of each key in a batch counts, so that one statement writes the batch.
"""
import argparse
import json
import os
import time

import psycopg
import pymongo
from bson.timestamp import Timestamp

BATCH = 1000
COLUMNS = ("id", "name", "email", "owner_id", "status", "city", "amount", "quantity", "active", "created_at",
           "updated_at", "note")
CONFLICT = "on conflict (id) do update set " + ", ".join(f"{c} = excluded.{c}" for c in COLUMNS[1:])
UPSERT = f"insert into flat ({', '.join(COLUMNS)}) values ({', '.join(['%s'] * len(COLUMNS))}) {CONFLICT}"


def row(doc):
    """Twelve columns of a document. The ObjectId is padded to a uuid: nothing is cheaper."""
    owner = doc.get("owner")
    return ("00000000" + str(doc["_id"]), doc["name"], doc["email"], "00000000" + str(owner) if owner else None,
            doc["status"], doc["city"], doc["amount"], doc["quantity"], doc["active"], doc["createdAt"],
            doc["updatedAt"], doc["note"])


def executemany(cursor, rows):
    """One statement a row, sent as a pipeline."""
    cursor.executemany(UPSERT, rows)


def copy(cursor, rows):
    """COPY into a temporary table, and one statement from there."""
    cursor.execute("create temporary table if not exists batch (like flat) on commit delete rows")
    with cursor.copy("copy batch from stdin") as lines:
        for r in rows:
            lines.write_row(r)
    cursor.execute(f"insert into flat select * from batch {CONFLICT}")


WAYS = {"copy": copy, "executemany": executemany}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--start", help="operation time to start at: seconds,increment")
    parser.add_argument("--full-document", default="updateLookup", choices=["updateLookup", "whenAvailable"])
    parser.add_argument("--way", default="copy", choices=WAYS, help="how a batch is written (%(default)s)")
    arguments = parser.parse_args()

    started = time.monotonic()
    collection = pymongo.MongoClient(os.environ["SLACKWATER_MONGODB_URI"])[os.environ["BENCH_DATABASE"]]["flat"]
    target = psycopg.connect(os.environ["SLACKWATER_POSTGRES_URL"])
    cursor = target.cursor()
    write = WAYS[arguments.way]
    cursor.execute("set timezone to 'UTC'")
    cursor.execute("create table if not exists stream_position (name text primary key, token text not null)")
    cursor.execute("select token from stream_position where name = 'flat'")
    saved = cursor.fetchone()
    target.commit()
    if saved:
        place = {"resume_after": {"_data": saved[0]}}
    else:
        seconds, increment = map(int, arguments.start.split(","))
        place = {"start_at_operation_time": Timestamp(seconds, increment)}

    upserts, deletes, pending, seen = {}, {}, 0, 0
    with collection.watch(full_document=arguments.full_document, **place) as stream:
        for event in stream:
            key = event["documentKey"]["_id"]
            if event["operationType"] == "delete":
                upserts.pop(key, None)
                deletes[key] = "00000000" + str(key)
            else:
                doc = event.get("fullDocument")
                if doc is not None:  # none: deleted since, and that event follows
                    deletes.pop(key, None)
                    upserts[key] = row(doc)
            pending += 1
            seen += 1
            if pending == BATCH or seen == arguments.events:
                if upserts:
                    write(cursor, list(upserts.values()))
                if deletes:
                    cursor.execute("delete from flat where id = any(%s::uuid[])", [list(deletes.values())])
                cursor.execute("insert into stream_position values ('flat', %s) on conflict (name)"
                               " do update set token = excluded.token", [event["_id"]["_data"]])
                target.commit()
                upserts, deletes, pending = {}, {}, 0
            if seen == arguments.events:
                break
    print(json.dumps({"events": seen, "seconds": round(time.monotonic() - started, 3)}))


main()
