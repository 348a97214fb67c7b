"""Ten million outcomes, and how long it takes to ask for them (scripts/bench outcomes).

The rows are made by SQL and shaped like a router's: a month, 2000 organizations of which one has a tenth of all, 50,000 users,
six operations, 30 % on the task side, one in 200 failed. Sums are made of the same rows. Then the recorder's own code takes the
file up (chunks, filters, hours), as it does after an upgrade. Every question is asked of migration-status itself, five times; the
median and the slowest are told. With a FILE that is there it is asked as it is.
"""
import os
import sqlite3
import statistics
import subprocess
import sys
import time

ROWS = int(os.environ.get("BENCH_OUTCOMES", "10000000"))
MONTH_US = 30 * 86400 * 10**6
SQL_SERIES = """INSERT INTO series (service, operation, side, backend, role, reason, result, answered)
    SELECT 'service-' || o % 3, 'operation-' || o, side, CASE side WHEN 'task' THEN 'celery' ELSE '' END, 'primary', 'flag', result, 1
    FROM (WITH RECURSIVE n(o) AS (SELECT 0 UNION ALL SELECT o + 1 FROM n WHERE o < 5) SELECT o FROM n),
         (SELECT 'legacy' AS side UNION ALL SELECT 'task'), (SELECT 'success' AS result UNION ALL SELECT 'failure')"""
SQL_ROWS = """WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows),
    r(i, h, failed) AS (SELECT i, i * 2654435761 % 4294967296, i * 40503 % 65536 < 328 FROM n)
    INSERT INTO outcomes (id, time_us, series, latency_us, http_status, organisation, user, variant, task_id, request_id, error)
    SELECT i, :begin + i * :step, (SELECT id FROM ids WHERE o = h % 6 AND task = (h / 7 % 10 < 3) AND bad = failed),
      2000 + h % 400000, CASE failed WHEN 1 THEN 502 ELSE 200 END, 'org-' || CASE h / 11 % 10 WHEN 0 THEN 0 ELSE h / 13 % 2000 END,
      'user-' || h / 17 % 50000, NULL, NULL, printf('%08x-%04x-4000-8000-%012x', h, i % 65536, i * 48271),
      CASE failed WHEN 1 THEN 'reset: connection ' || i || ' was closed by 10.0.0.' || h % 9 END FROM r"""


def histogram(count, latency=3500):
    """One bucket: as outcomes/histogram.h has it."""
    bits = max(latency.bit_length() - 6, 0)
    bucket, out = (bits << 5) + (latency >> bits), b""
    for value in (bucket, count):
        while value > 127:
            out, value = out + bytes([value & 127 | 128]), value >> 7
        out += bytes([value])
    return out


def make(path, index):
    subprocess.run([index, path], check=True, stdout=subprocess.DEVNULL)
    db = sqlite3.connect(path, isolation_level=None)
    db.create_function("histogram", 1, histogram, deterministic=True)
    begin, began = (time.time_ns() // 1000 - MONTH_US) // 3600000000 * 3600000000, time.monotonic()
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -262144")
    db.execute("BEGIN")
    db.execute(SQL_SERIES)
    db.execute("CREATE TEMP TABLE ids AS SELECT id, substr(operation, 11) + 0 AS o, side = 'task' AS task, result = 'failure' AS bad FROM series")
    db.execute("CREATE INDEX temp.ids_by ON ids (o, task, bad)")
    db.execute(SQL_ROWS, {"rows": ROWS, "begin": begin, "step": MONTH_US // ROWS})
    db.execute("INSERT INTO row_marks SELECT min(id), time_us / 60000000 FROM outcomes GROUP BY time_us / 60000000")
    db.execute("INSERT INTO rollups SELECT time_us / 3600000000 * 60, series, count(*), sum(latency_us), histogram(count(*))"
               " FROM outcomes GROUP BY 1, 2")
    db.execute("UPDATE folded SET until = (SELECT max(minute) + 60 FROM rollups)")
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    rows = db.execute("SELECT request_id, user, task_id FROM outcomes WHERE id = ?", (ROWS // 3,)).fetchone()
    db.close()
    print("made %d rows in %.0f s, %.2f GiB" % (ROWS, time.monotonic() - began, os.path.getsize(path) / 2**30), flush=True)
    return rows


def ask(status, path, name, *options):
    times = []
    for _ in range(5):
        began = time.monotonic()
        run = subprocess.run([status, "--db", path, *options], capture_output=True, text=True)
        times.append(time.monotonic() - began)
        if run.returncode not in (0, 3):
            sys.exit("%s: exit %d: %s" % (name, run.returncode, run.stderr))
    print("%-44s median %6.3f s  slowest %6.3f s   %d lines" % (name, statistics.median(times), max(times), run.stdout.count("\n")), flush=True)


def main():
    build, path = sys.argv[1], sys.argv[2]
    status, index = os.path.join(build, "src/programs/migration-status"), os.path.join(build, "scripts/bench.d/bench-index")
    if not os.path.exists(path):
        make(path, index)
        print("taken up: " + subprocess.run([index, path], check=True, capture_output=True, text=True).stdout.strip(), flush=True)
        print("%.2f GiB with chunks and hours" % (os.path.getsize(path) / 2**30), flush=True)
    with sqlite3.connect("file:%s?mode=ro" % path, uri=True) as db:
        of_a_third, user = db.execute("SELECT request_id, user FROM outcomes WHERE id = (SELECT max(id) / 3 FROM outcomes)").fetchone()
    ask(status, path, "report")
    ask(status, path, "report, the last day", "--since", "24h")
    ask(status, path, "--org, a tenth of all, a month", "--org", "org-0")
    ask(status, path, "--org, a small one, a month", "--org", "org-1234")
    ask(status, path, "--org, 29 days and 13 minutes", "--org", "org-0", "--since", "%dm" % (29 * 1440 + 13))
    ask(status, path, "--request, of ten days after the first", "--request", of_a_third)
    ask(status, path, "--request, none", "--request", "none-of-these")
    ask(status, path, "--requests, the newest", "--requests")
    ask(status, path, "--requests --user", "--requests", "--user", user)
    ask(status, path, "--requests --org --result failure", "--requests", "--org", "org-1234", "--result", "failure")
    ask(status, path, "--requests, an hour of ten days ago", "--requests", "--since", "240h", "--until", "239h")
    ask(status, path, "--errors, a month", "--errors", "--since", "31d")
    ask(status, path, "--errors, 15 minutes", "--errors", "--since", "15m")
    ask(status, path, "--errors --org, a month", "--errors", "--org", "org-0", "--since", "31d")
    ask(status, path, "--organizations, a day", "--organizations")
    ask(status, path, "--organizations, a month", "--organizations", "--since", "31d")


if __name__ == "__main__":
    main()
