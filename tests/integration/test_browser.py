"""The page in a headless Chromium, with traffic through a real router and a real worker: every number on it is SQLite's."""
import glob
import os

import pytest

import configuration as c
from browser import MISSING, Browser
from http_text import wait_until
from programs import BUILD
from raw import ask, request
from test_replicas import peers_of

if MISSING or "asan" in BUILD or "tsan" in BUILD:
    pytest.skip(MISSING or "a browser is not run under sanitizers", allow_module_level=True)

AXE = os.environ.get("AXE") or next(iter(glob.glob(os.path.expanduser("~/.cache/migration-router/axe-core-*/axe.min.js"))), "")


@pytest.fixture(scope="module")
def browser():
    it = Browser()
    yield it
    it.stop()


class Seen:
    """A router whose operation `add` is at 40 %, `later` at 0 %, and one path that nobody declared."""

    def __init__(self, start):
        self.origin = start.origin()
        operations = {name: c.operation("POST /" + name, {"name": "add_numbers", "args": [{"$ref": "body:/a"}, 1]}, flags=[name + "_on"], identity=c.IDENTITY)
                      for name in ("add", "later")}
        self.router, self.worker = start.with_worker(
            c.router({"app": c.service(self.origin, operations)}, backends=c.embedded(tasks=None)),
            c.features(c.boolean("add_on", False, 40), c.boolean("later_on", False, 0)))

    def send(self, name, n, first=0):
        for i in range(first, first + n):
            ask(self.router.port, request("POST", "/" + name, [("X-User-Id", "user-%d" % i), ("X-Organization-Id", "org-%d" % (i % 3))], b'{"a": %d}' % i))

    def url(self, query=""):
        return "http://127.0.0.1:%d/%s" % (self.router.admin_port, query)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    from conftest import Started
    started = Started(tmp_path_factory)
    it = Seen(started)
    it.send("add", 120)
    it.origin.answers(500)
    it.send("add", 12, 200)
    it.origin.answers(404)
    it.send("later", 9)
    it.origin.answers(200)
    it.send("later", 25, 50)
    it.send("nobody/declared/this", 16)
    ask(it.router.port, request("GET", "/nobody/declared/this", [("X-Request-ID", "of-one")]))
    it.router.wait_outcomes(120 + 12 + 9 + 25 + 17)
    yield it
    started.end()


PAGES = ("", "errors", "organizations", "requests", "requests?id=of-one", "differences")


def count(seen, where):
    return seen.router.query("SELECT count(*) AS n FROM attempts WHERE %s" % where)[0]["n"]


def shown(n):
    return format(n, ",")


def percent(part, whole):
    p = round(1000 * part / whole) / 10
    return "%.1f %%" % (min(p, 99.9) if part < whole else p if p or not part else 0.1)


def rows(browser, card):
    """name of the row -> [legacy, tasks]"""
    found = browser.run("return [...document.querySelectorAll(arguments[0] + ' tbody tr')].filter(r => r.querySelector('th'))"
                        ".map(r => [r.querySelector('th').textContent, [...r.querySelectorAll('td')].map(d => (d.firstChild || d).textContent)])", card)
    return dict(map(tuple, found))


def test_every_number_of_a_card_is_sqlites(seen, browser):
    browser.open(seen.url())
    for operation in ("add", "later"):
        card = "[data-operation=%s]" % operation
        ours, sides = "operation = '%s'" % operation, ("legacy", "task")
        table = rows(browser, card)
        answered = [count(seen, ours + " AND answered AND side = '%s'" % side) for side in sides]
        assert table["answered"] == [shown(n) for n in answered]
        [share] = browser.text(card + " [data-measured]")
        assert share.replace("\xa0", " ") == percent(answered[1], sum(answered))
        for i, side in enumerate(sides):
            counted = count(seen, ours + " AND side = '%s' AND role <> 'shadow' AND result IN ('success', 'failure', 'timeout', 'unknown')" % side)
            good = count(seen, ours + " AND side = '%s' AND role <> 'shadow' AND result = 'success'" % side)
            assert table["success"][i] == (percent(good, counted) if counted else "–")
            for result, name in (("rejected", "rejected"), ("failure", "failed"), ("timeout", "timed out"), ("unknown", "unknown")):
                n = count(seen, ours + " AND side = '%s' AND result = '%s'" % (side, result))
                assert table.get(name, ["0", "0"])[i] == shown(n), (operation, side, result)
        assert browser.text(card + " .spark figcaption") == [shown(sum(answered)) + " in the last hour"]
    assert [t.replace("\xa0", " ") for t in browser.text("[data-set]")] in (["40 %", "0 %"], ["0 %", "40 %"])
    assert browser.complaints() == []


def test_the_timeline_adds_up_and_leaves_out_what_cannot_move(seen, browser):
    browser.open(seen.url("?since=1h"))
    sums = browser.run("return [...document.querySelectorAll('#points tbody tr')].map(r => r.dataset.p.split(',').map(Number))"
                       ".reduce((a, p) => [a[0] + p[1], a[1] + p[2]], [0, 0])")
    assert sums == [count(seen, "answered AND side = '%s' AND operation IN ('add', 'later')" % side) for side in ("legacy", "task")]
    all_of_it = browser.text("#points tbody td:nth-child(2)")
    assert sum(int(t.replace(",", "")) for t in all_of_it) == sum(sums)
    drawn = browser.run("return ['share', 'success', 'p95', 'traffic'].map(n => { const c = document.getElementById('chart-' + n);"
                        " return c.width > 100 && c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v); })")
    assert drawn == [True] * 4
    assert "17" in browser.text(".others")[0] and not browser.text("[data-operation='(unmapped)']")


def test_filters_are_in_the_url(seen, browser):
    browser.open(seen.url("?since=1h"))
    browser.run("document.querySelector('[data-operation=add] h3 a').click()")
    wait_until(lambda: "operation=add" in browser.run("return location.search"), "the filtered page")
    assert browser.run("return location.search") == "?since=1h&service=app&operation=add"
    assert browser.run("return [...document.querySelectorAll('[data-operation]')].map(e => e.dataset.operation)") == ["add"]
    assert sum(int(t.replace(",", "")) for t in browser.text("#points tbody td:nth-child(2)")) == count(seen, "answered AND operation = 'add'")
    browser.open(seen.url("?since=1h&org=org-1"))
    assert rows(browser, "[data-operation=add]")["answered"] == [
        shown(count(seen, "operation = 'add' AND answered AND organization = 'org-1' AND side = '%s'" % side)) for side in ("legacy", "task")]


def test_without_a_script_nothing_is_missing_but_movement(seen, browser):
    browser.cdp("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(seen.url())
        text = ask(seen.router.admin_port, request("GET", "/")).body.decode()
        for word in ("40&nbsp;%</b> set", "<h2 id=\"health-h\">", "data-operation=\"later\"", "<table id=\"points\""):
            assert word in text
        browser.screenshot(os.path.join(seen.router.folder, "no-script.png"))
    finally:
        browser.cdp("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.skipif(not os.path.exists(AXE), reason=os.environ.get("AXE_MISSING") or "no axe-core in the cache folder")
@pytest.mark.parametrize("width, dark, forced", [(1280, False, False), (1280, True, False), (360, False, False), (1280, False, True)])
def test_axe_finds_nothing(seen, browser, width, dark, forced):
    with open(AXE, encoding="utf-8") as file:
        script = file.read()
    browser.size(width)
    browser.media(dark=dark, forced=forced, still=True)
    try:
        for path in PAGES if width == 360 else PAGES[:1]:  # they share their colors
            browser.open(seen.url(path))
            browser.run("for (const d of document.querySelectorAll('details')) d.open = true; scrollTo(0, 0)")
            browser.cdp("Runtime.evaluate", expression=script)  # as the browser's own tools do: the page's policy is not asked
            found = browser.run_async("const done = arguments[0]; axe.run(document, {resultTypes: ['violations']})"
                                      ".then(r => done(r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.target + ' ' + n.failureSummary).slice(0, 3).join('; '))))")
            assert found == [], path
    finally:
        browser.size(1280)
        browser.media(dark=False, forced=False, still=False)


def test_a_phone_scrolls_in_one_direction(seen, browser):
    browser.size(360, 740)
    try:
        for path in PAGES:
            browser.open(seen.url(path))
            assert browser.run("return document.documentElement.scrollWidth") == 360, path
        browser.open(seen.url())
        cut = browser.run("return [...document.querySelectorAll('.card td, .card b, .hero h1')].filter(e => e.getBoundingClientRect().right > 360).map(e => e.textContent)")
        assert cut == [], "numbers that are out of sight"
    finally:
        browser.size(1280)


def test_the_keyboard_reaches_everything_and_stays_where_it_is(seen, browser):
    browser.open(seen.url())
    browser.key("Tab")
    assert browser.run("return document.activeElement.className") == "skip"
    browser.run("document.querySelector('#health summary').focus()")
    browser.key("Enter")
    opened = browser.run("return document.activeElement.parentNode.id")
    assert browser.run("return document.getElementById(arguments[0]).open", opened)
    seen.send("later", 3, 900)  # the sections are replaced meanwhile
    before = browser.run("return document.querySelector('footer').dataset.version")
    wait_until(lambda: browser.run("return document.querySelector('footer').dataset.version") != before, "the page is drawn again")
    assert browser.run("return document.getElementById(arguments[0]).open", opened)
    assert browser.run("return document.activeElement.parentNode.id") == opened


def test_the_page_is_live_and_says_when_it_is_not(start, browser):
    it = Seen(start)
    it.send("add", 10)
    browser.open(it.url())
    wait_until(lambda: browser.text("#live") == ["live"], "the page is live")
    it.send("add", 30, 50)
    wait_until(lambda: rows(browser, "[data-operation=add]").get("answered") == [
        shown(count(it, "answered AND side = '%s'" % side)) for side in ("legacy", "task")], "the new figures")
    level = lambda: browser.run("return document.documentElement.dataset.level")  # noqa: E731
    wait_until(lambda: level() == "ok", "that all is well: " + " ".join(browser.text("#sentence")))
    it.worker.stop()
    wait_until(lambda: level() == "stop", "that the worker is gone")
    assert "worker" in browser.text("#sentence")[0]
    assert "worker" in browser.text("#said")[0], "it is said to who cannot see it"
    it.router.stop()
    wait_until(lambda: "does not answer" in browser.text("#stale")[0], "that the figures are old")
    assert browser.run("return document.getElementById('stale').hidden") is False


def test_a_page_of_all_routers_is_live_and_says_who_has_gone(start, browser):
    routers = peers_of(start, 3)
    browser.open("http://127.0.0.1:%d/?routers=all" % routers[0].admin_port)
    assert browser.text("#routers .note")[0].startswith("All 3 routers")
    for _ in range(5):
        assert ask(routers[1].port, request()).status == 200
    wait_until(lambda: browser.run("return document.querySelector('#routers [data-left-out]').textContent") == "5", "what another router has served")
    routers[1].kill()
    wait_until(lambda: "2 of 3 routers; the figures lack r1: " in " ".join(browser.text("#routers .alert")), "that one is missing")
    wait_until(lambda: browser.run("return document.documentElement.dataset.level") != "ok", "the tab is not calm")
    assert any("unreachable since" in text for text in browser.text("#health-peer-2 summary")), "and since when"
    browser.size(360, 740)
    try:
        assert browser.run("return document.documentElement.scrollWidth") == 360
    finally:
        browser.size(1280)
    browser.run("document.querySelector('[aria-label=Routers] a').click()")
    wait_until(lambda: browser.run("return location.search") == "" and not browser.text("#routers"), "this router's page")
