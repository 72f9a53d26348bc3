"""The figures of all rounds, as a table for people and as a summary."""
from __future__ import annotations

from statistics import median

TITLES = {"snapshot": "Copy of flat documents into one table",
          "stream": "Changes: 20 % inserts, 75 % updates, 5 % deletes",
          "two": "Copy of documents with an array into two tables"}
BESIDE = ("python", "debezium")  # what ratios are of: the first of them that took part
PAIRS = (("kafka", "slackwater"), ("kafka", "debezium"))  # told one beside the other
COSTS = ("cpu", "capture_cpu", "apply_cpu", "mongod_cpu", "postgres_cpu", "broker_cpu")


def summary(runs):
    """Medians over the rounds, for each part and candidate. CPU in microseconds a document or event."""
    found = []
    for part in dict.fromkeys(run["part"] for run in runs):
        of_part = [run for run in runs if run["part"] == part]
        names = list(dict.fromkeys(run["candidate"] for run in of_part))
        other = next((name for name in BESIDE if name in names), None)
        beside = [run["per_second"] for run in of_part if run["candidate"] == other]
        for name in names:
            rounds = [run for run in of_part if run["candidate"] == name]
            speeds = [run["per_second"] for run in rounds]
            line = {"part": part, "candidate": name, "rounds": len(rounds), "events": rounds[0]["events"],
                    "per_second": median(speeds), "slowest": min(speeds), "fastest": max(speeds),
                    "ratio": median(speeds) / median(beside) if beside else None, "ratio_to": other,
                    "rss_mb": max(run["rss_mb"] for run in rounds),
                    # How many CPUs were busy, at worst, with what has no part in this.
                    "others": max(run["other_cpu"] / run["seconds"] for run in rounds)}
            for cost in COSTS:
                values = [run[cost] / run["events"] * 1e6 for run in rounds if cost in run]
                line[f"{cost}_us"] = median(values) if values else None
            found.append(line)
    return found


def table(runs):
    lines = []
    for part in dict.fromkeys(run["part"] for run in runs):
        rows = [line for line in summary(runs) if line["part"] == part]
        columns = [column for column in COLUMNS if column[2] or any(line[column[1]] is not None for line in rows)]
        cells = [("", *(title for title, *_ in columns))]
        cells += [(line["candidate"], *(shown(line) if callable(shown) else number(line[key], shown)
                                        for _title, key, _always, shown in columns))
                  for line in sorted(rows, key=lambda line: line["per_second"])]
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        beside = f", ratio to {rows[0]['ratio_to']}" if rows[0]["ratio_to"] else ""
        lines += ["", f"{TITLES[part]}: {rows[0]['events']:,}, median of {rows[0]['rounds']}{beside}"]
        lines += ["  " + "  ".join(text.ljust(w) if i == 0 else text.rjust(w)
                                   for i, (text, w) in enumerate(zip(row, widths))) for row in cells]
        lines += pairs({line["candidate"]: line for line in rows})
    return "\n".join(lines)


def pairs(lines):
    """Speed and CPU of one candidate as multiples of another's; the CPU is that of all processes."""
    return [f"  {one} / {other}: {lines[one]['per_second'] / lines[other]['per_second']:.2f} × the speed, "
            f"{whole(lines[one]) / whole(lines[other]):.2f} × the CPU"
            for one, other in PAIRS if one in lines and other in lines]


def whole(line):
    # What capture and apply cost is in the candidate's own.
    return sum(line[f"{cost}_us"] or 0 for cost in COSTS if cost not in ("capture_cpu", "apply_cpu"))


def number(value, form):
    return "" if value is None else format(value, form)


def spread(line):
    return f"{line['slowest']:,.0f}–{line['fastest']:,.0f}"


def ratio(line):
    return number(line["ratio"], ".2f") + ("×" if line["ratio"] else "")


# Title, key, whether it is shown without a value, how it is shown.
COLUMNS = (("a second", "per_second", True, ",.0f"), ("spread", "", True, spread), ("ratio", "ratio", True, ratio),
           ("CPU µs", "cpu_us", True, ".1f"), ("capture µs", "capture_cpu_us", False, ".1f"),
           ("apply µs", "apply_cpu_us", False, ".1f"), ("mongod µs", "mongod_cpu_us", True, ".1f"),
           ("postgres µs", "postgres_cpu_us", True, ".1f"), ("broker µs", "broker_cpu_us", False, ".1f"),
           ("peak MB", "rss_mb", True, ",.0f"), ("others' CPUs", "others", True, ".2f"))
