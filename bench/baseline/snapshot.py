#!/usr/bin/env python3
"""What a team would write otherwise: `find` with large batches, and COPY as text into an empty table."""
import argparse
import json
import os
import time
from hashlib import sha1

import psycopg
import pymongo

BATCH = 10_000
NAMESPACE = bytes(range(16))
FLAT = ("copy flat (id, name, email, owner_id, status, city, amount, quantity, active, created_at, updated_at, note)"
        " from stdin")
TWO = "copy two (id, number, customer, status, total, created_at, note) from stdin"
ITEMS = "copy two_items (id, two_id, sku, title, qty, price) from stdin"

# Text of COPY: what separates columns and rows is escaped, nothing else.
ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def text(value):
    if value is None:
        return "\\N"
    return value if value.isprintable() and "\\" not in value else value.translate(ESCAPES)


def uuid5(name):
    """As `uuid.uuid5` gives it, without the object around it."""
    digest = bytearray(sha1(NAMESPACE + name).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    return digest.hex()


def flat_with_uuid5(doc):
    """The same line with the ids that slackwater writes: made of a namespace, so random in the index."""
    return (f"{uuid5(doc['_id'].binary)}\t{text(doc['name'])}\t{text(doc['email'])}\t{uuid5(doc['owner'].binary)}\t"
            f"{text(doc['status'])}\t{text(doc['city'])}\t{doc['amount']}\t{doc['quantity']}\t{doc['active']}\t"
            f"{doc['createdAt'].isoformat()}Z\t{doc['updatedAt'].isoformat()}Z\t{text(doc['note'])}\n")


def flat(doc):
    """One line. The ObjectId is padded to a uuid: nothing is cheaper."""
    return (f"00000000{doc['_id']}\t{text(doc['name'])}\t{text(doc['email'])}\t00000000{doc['owner']}\t"
            f"{text(doc['status'])}\t{text(doc['city'])}\t{doc['amount']}\t{doc['quantity']}\t{doc['active']}\t"
            f"{doc['createdAt'].isoformat()}Z\t{doc['updatedAt'].isoformat()}Z\t{text(doc['note'])}\n")


def two(doc):
    return (f"00000000{doc['_id']}\t{text(doc['number'])}\t{text(doc['customer'])}\t{text(doc['status'])}\t"
            f"{doc['total']}\t{doc['createdAt'].isoformat()}Z\t{text(doc['note'])}\n")


def items(doc):
    """Lines of the child table; the place in the array is in the padding."""
    return "".join(f"{place:08x}{doc['_id']}\t00000000{doc['_id']}\t{text(item['sku'])}\t{text(item['title'])}\t"
                   f"{item['qty']}\t{item['price']}\n" for place, item in enumerate(doc["items"], 1))


def batches(cursor, size):
    batch = []
    for doc in cursor:
        batch.append(doc)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="flat", choices=["flat", "two"])
    parser.add_argument("--uuid5", action="store_true", help="ids as slackwater makes them (flat only)")
    arguments = parser.parse_args()
    line = flat_with_uuid5 if arguments.uuid5 else flat
    started = time.monotonic()
    database = pymongo.MongoClient(os.environ["SLACKWATER_MONGODB_URI"])[os.environ["BENCH_DATABASE"]]
    found = database[arguments.shape].find(batch_size=BATCH)
    documents = 0
    with psycopg.connect(os.environ["SLACKWATER_POSTGRES_URL"]) as target, target.cursor() as cursor:
        if arguments.shape == "flat":
            with cursor.copy(FLAT) as copy:
                for batch in batches(found, BATCH // 10):
                    copy.write("".join(map(line, batch)))
                    documents += len(batch)
        else:
            for batch in batches(found, BATCH):  # parents before their children, so in turns
                with cursor.copy(TWO) as copy:
                    copy.write("".join(map(two, batch)))
                with cursor.copy(ITEMS) as copy:
                    copy.write("".join(map(items, batch)))
                documents += len(batch)
    print(json.dumps({"documents": documents, "seconds": round(time.monotonic() - started, 3)}))


main()
