"""Moving in a headless Chromium, without and with what only a real browser sends: cookies, Origin, Sec-Fetch-Site."""
import glob
import os

import pytest

from browser import MISSING, Browser
from http_text import wait_until
from programs import BUILD
from test_move import FLAG, WRITE, World

if MISSING or "asan" in BUILD or "tsan" in BUILD:
    pytest.skip(MISSING or "a browser is not run under sanitizers", allow_module_level=True)

AXE = os.environ.get("AXE") or next(iter(glob.glob(os.path.expanduser("~/.cache/migration-router/axe-core-*/axe.min.js"))), "")
PICTURES = os.environ.get("PICTURES")


@pytest.fixture(scope="module")
def browser():
    it = Browser()
    yield it
    it.stop()


def check(browser, name):
    """axe finds nothing, the console has no complaint, and nothing is wider than a phone."""
    if PICTURES:
        browser.screenshot(os.path.join(PICTURES, "move-%s.png" % name))
    browser.size(360)
    assert browser.run("return document.documentElement.scrollWidth") <= 360, name
    if PICTURES:
        browser.screenshot(os.path.join(PICTURES, "move-%s-phone.png" % name))
    browser.size(1280)
    if AXE:
        with open(AXE, encoding="utf-8") as file:
            browser.run(file.read())
        found = browser.run_async("const done = arguments[0]; axe.run(document).then(r => done(r.violations.map(v => v.id + ': ' + v.nodes[0].html)))")
        assert found == [], (name, found)
    assert browser.complaints() == [], name


def fill(browser, selector, value):
    browser.run("const e = document.querySelector(arguments[0]); e.value = arguments[1]", selector, value)


def press(browser, selector):
    before = browser.run("return performance.timeOrigin")
    browser.run("document.querySelector(arguments[0]).click()", selector)
    wait_until(lambda: browser.run("return document.readyState === 'complete' && performance.timeOrigin") not in (False, before), "the next page")


def test_from_the_sign_in_to_the_change(start, browser):
    w = World(start)
    browser.open("http://%s/move" % w.host)
    assert browser.run("return location.pathname + location.search") == "/sign-in?next=%2Fmove"
    check(browser, "sign-in")
    fill(browser, "#token", "wrong")
    press(browser, ".sign-in button")
    assert browser.text("#trouble") == ["This token is not known here."]
    browser.complaints()  # the browser says that the answer was 401
    fill(browser, "#token", WRITE)
    press(browser, ".sign-in button")
    assert browser.run("return location.pathname") == "/move" and browser.run("return document.cookie") == ""
    check(browser, "move")
    fill(browser, "input[name=percent]", "50")
    press(browser, "form:has(input[name=percent]) button")
    assert browser.text("h1") == ["Set %s to 50 %% for everybody" % FLAG] and w.percentage() == 25
    check(browser, "plan")
    fill(browser, "#message", "a calm week")
    press(browser, "#confirm")
    assert browser.text("h1") == ["Done: " + FLAG] and w.percentage() == 50
    check(browser, "done")
    assert (w.history()[-1]["who"], w.history()[-1]["message"]) == ("alice", "a calm week")
    browser.open("http://%s/move" % w.host)
    press(browser, "form[action='/sign-out'] button")
    browser.open("http://%s/move" % w.host)
    assert browser.run("return location.pathname") == "/sign-in"


def test_a_page_of_another_port_cannot_send_the_form(start, browser):
    """The strict cookie comes along, since ports are one site; nothing else does."""
    w = World(start)
    browser.open("http://%s/sign-in" % w.host)
    fill(browser, "#token", WRITE)
    press(browser, ".sign-in button")
    w.origin.always(lambda x: x.answer(200, [("Content-Type", "text/html")], (
        '<form method="post" action="http://%s/_admin/move/plan"><input name="command" value="rollback"><input name="flag" value="%s">'
        '<button>free money</button></form>' % (w.host, FLAG)).encode()))
    browser.open("http://127.0.0.1:%d/" % w.origin.port)
    press(browser, "button")
    assert "Pages of other sites" in browser.run("return document.body.textContent") and w.percentage() == 25
