"""The figures of all rounds, as a table for people and as a summary."""
from __future__ import annotations

from statistics import median

TITLES = {"snapshot": "Copy of flat documents into one table",
          "stream": "Changes: 20 % inserts, 75 % updates, 5 % deletes",
          "two": "Copy of documents with an array into two tables"}
BESIDE = "python"  # what ratios are of
HEAD = ("", "a second", "spread", "ratio", "CPU µs", "mongod µs", "postgres µs", "peak MB", "others' CPUs")


def summary(runs):
    """Medians over the rounds, for each part and candidate. CPU in microseconds a document or event."""
    found = []
    for part in dict.fromkeys(run["part"] for run in runs):
        of_part = [run for run in runs if run["part"] == part]
        beside = [run["per_second"] for run in of_part if run["candidate"] == BESIDE]
        for name in dict.fromkeys(run["candidate"] for run in of_part):
            rounds = [run for run in of_part if run["candidate"] == name]
            speeds = [run["per_second"] for run in rounds]
            line = {"part": part, "candidate": name, "rounds": len(rounds), "events": rounds[0]["events"],
                    "per_second": median(speeds), "slowest": min(speeds), "fastest": max(speeds),
                    "ratio": median(speeds) / median(beside) if beside else None,
                    "rss_mb": max(run["rss_mb"] for run in rounds),
                    # How many CPUs were busy, at worst, with what has no part in this.
                    "others": max(run["other_cpu"] / run["seconds"] for run in rounds)}
            for cost in ("cpu", "mongod_cpu", "postgres_cpu"):
                values = [run[cost] / run["events"] * 1e6 for run in rounds if cost in run]
                line[f"{cost}_us"] = median(values) if values else None
            found.append(line)
    return found


def table(runs):
    lines = []
    for part in dict.fromkeys(run["part"] for run in runs):
        rows = [line for line in summary(runs) if line["part"] == part]
        cells = [HEAD] + [cell(line) for line in sorted(rows, key=lambda line: line["per_second"])]
        widths = [max(len(row[i]) for row in cells) for i in range(len(HEAD))]
        lines += ["", f"{TITLES[part]}: {rows[0]['events']:,}, median of {rows[0]['rounds']}"]
        lines += ["  " + "  ".join(text.ljust(w) if i == 0 else text.rjust(w)
                                   for i, (text, w) in enumerate(zip(row, widths))) for row in cells]
    return "\n".join(lines)


def cell(line):
    def number(value, form):
        return "" if value is None else format(value, form)
    return (line["candidate"], number(line["per_second"], ",.0f"),
            f"{line['slowest']:,.0f}–{line['fastest']:,.0f}",
            number(line["ratio"], ".2f") + ("×" if line["ratio"] else ""),
            number(line["cpu_us"], ".1f"), number(line["mongod_cpu_us"], ".1f"),
            number(line["postgres_cpu_us"], ".1f"), number(line["rss_mb"], ",.0f"), number(line["others"], ".2f"))
