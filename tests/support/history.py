"""Made-up history in a real outcomes.db, for pages and reports over spans that no test can wait for. The file is made by the router
itself, which must not be running meanwhile."""
import math
import sqlite3
import statistics

MINUTE_US = 60_000_000
FOLD_AFTER = 2880  # minutes: older sums are per hour (outcomes/rollup_fold.h)
SPREAD = [statistics.NormalDist().inv_cdf((i + 0.5) / 9) for i in range(9)]


def bucket(value):
    """outcomes/histogram.c"""
    if value < 32:
        return max(0, value)
    shift = min(value, 2**40 - 1).bit_length() - 6
    return ((shift + 1) << 5) + (value >> shift) - 32


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7f | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def histogram(count, median_us, sigma):
    """That many latencies, log-normal."""
    buckets = {}
    for i in range(count):
        at = bucket(int(median_us * math.exp(sigma * SPREAD[(i * 5) % len(SPREAD)])))
        buckets[at] = buckets.get(at, 0) + 1
    out, following = b"", 0
    for at in sorted(buckets):
        out += varint(at - following) + varint(buckets[at])
        following = at + 1
    return out


class History:
    def __init__(self, path, now_us):
        self.db = sqlite3.connect(path, isolation_level=None)
        self.db.execute("PRAGMA synchronous=OFF")
        self.db.execute("BEGIN")
        self.now = now_us // MINUTE_US
        self.folded = (self.now - FOLD_AFTER) // 60 * 60
        self.series, self.histograms = {}, {}
        self.executions = {"legacy": 0, "task": 0}

    def minutes(self, since):
        """The minutes of sums from `since` minutes ago until now: first of hours, then of minutes."""
        first = self.now - since
        hours = range(first // 60 * 60, self.folded, 60) if first < self.folded else ()
        return [*hours, *range(max(first, self.folded), self.now + 1)]

    def _series(self, *key):
        if key not in self.series:
            service, operation, side, backend, role, reason, result, answered = key
            self.db.execute("INSERT OR IGNORE INTO series (service, operation, side, backend, role, reason, result, answered)"
                            " VALUES (?,?,?,?,?,?,?,?)", key)
            self.series[key] = self.db.execute("SELECT id FROM series WHERE service=? AND operation=? AND side=? AND backend=? AND role=?"
                                               " AND reason=? AND result=? AND answered=?", key).fetchone()[0]
        return self.series[key]

    def add(self, minute, service, operation, side, count, result="success", median_us=100_000, backend="embedded", reason="flag",
            role="primary", answered=True, sigma=0.4):
        if count <= 0:
            return
        series = self._series(service, operation, side, backend if side == "task" else "", role, reason, result, int(answered))
        key = (count, round(median_us, -3), sigma)
        if key not in self.histograms:
            self.histograms[key] = histogram(*key)
        self.db.execute("INSERT OR REPLACE INTO rollups VALUES (?,?,?,?,?)", (minute, series, count, int(count * median_us), self.histograms[key]))
        if answered:
            self.executions[side] += count

    def rows(self, n, service, operation, organizations, users=50, result="success", side="legacy", latency_us=90_000, status=200):
        """Single outcomes, spread over the last hour, one organization after the other."""
        series = self._series(service, operation, side, "embedded" if side == "task" else "", "primary", "flag", result, 1)
        first = self.db.execute("SELECT coalesce(max(id), 0) FROM outcomes").fetchone()[0] + 1
        begin = (self.now - 60) * MINUTE_US
        self.db.execute("INSERT OR IGNORE INTO row_marks VALUES (?,?)", (first, self.now - 60))
        self.db.executemany("INSERT INTO outcomes (id, time_us, series, latency_us, http_status, organisation, user, request_id)"
                            " VALUES (?,?,?,?,?,?,?,?)",
                            ((first + i, begin + i * 3600 * 1_000_000 // n, series, latency_us + i % 977, status, organizations[i % len(organizations)],
                              "user-%d" % (i % users), "request-%s-%d" % (operation, first + i)) for i in range(n)))

    def event(self, minute, kind, service="", operation="", what="", why="", who="", backend="", before=-1, after=-1):
        self.db.execute("INSERT INTO events (time_us, kind, service, operation, backend, who, what, why, before_permyriad, after_permyriad)"
                        " VALUES (?,?,?,?,?,?,?,?,?,?)", (minute * MINUTE_US, kind, service, operation, backend, who, what, why,
                                                          None if before < 0 else round(before * 100), None if after < 0 else round(after * 100)))

    def done(self):
        self.db.execute("UPDATE folded SET until = ?", (self.folded,))
        self.db.execute("COMMIT")
        self.db.close()
