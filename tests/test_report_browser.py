"""The report in a real browser: headless Chromium, driven by selenium."""

from __future__ import annotations

import json
import os
import shutil
import time

import pytest

from engramma.report.html import write_report
from engramma.study.references import bibtex
from test_report import OBJECTS, example_study

os.environ["SE_OFFLINE"] = "true"  # selenium must not look for drivers on the network

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
PHONE, DESKTOP = 390, 1280


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (CHROMIUM and DRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--disable-dev-shm-usage", f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    path = write_report(example_study(), tmp_path_factory.mktemp("report") / "report.html")
    resize(driver, DESKTOP)
    driver.get_log("performance")  # what the browser's own first page asked for
    driver.get(path.as_uri())
    wait(driver, "return document.documentElement.dataset.ready === 'yes'")
    yield driver
    driver.quit()


def wait(driver, condition: str, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not driver.execute_script(condition):
        assert time.monotonic() < until, f"waited in vain for: {condition}"
        time.sleep(0.05)


def resize(driver, width: int) -> None:
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
    )


def settled(driver) -> None:
    """Every plot has been drawn at the width it now has."""
    wait(
        driver,
        "return [...document.querySelectorAll('.plot')].every("
        "p => !p.clientWidth || (p.drawnWidth === p.clientWidth && "
        "Math.abs(p.querySelector('.main-svg').clientWidth - p.clientWidth) < 2))",
    )


def test_every_plot_is_drawn_and_nothing_else_ran(browser):
    plots, drawn, failed, hacked = browser.execute_script(
        "const all = [...document.querySelectorAll('.plot')];"
        "return [all.length, all.filter(p => p.querySelector('svg.main-svg .plot, svg.main-svg "
        ".cartesianlayer')).length, document.querySelectorAll('.failed').length, window.hacked]"
    )
    assert plots == drawn == 20
    assert failed == 0
    assert hacked is None


def test_labels_reach_the_reader_unharmed(browser):
    shown = browser.execute_script(
        "return [...document.querySelectorAll('[data-kind=confusion] .ytick text')]"
        ".map(t => t.textContent)"
    )
    assert shown == OBJECTS
    legend = browser.execute_script(
        "return [...document.querySelectorAll('[data-kind=grouped_bars] .legendtext')]"
        ".map(t => t.textContent)"
    )
    assert any(t.startswith("</script><script>") for t in legend)


def test_square_matrices_are_square(browser):
    width, height = browser.execute_script(
        "const s = document.querySelector('[data-kind=confusion] .plot')._fullLayout._size;"
        "return [s.w, s.h]"
    )
    assert abs(width - height) < 3


def test_every_picture_decodes(browser):
    broken = browser.execute_script(
        "return [...document.images].filter(i => !i.naturalWidth).map(i => i.alt)"
    )
    assert broken == []


def test_slider_leafs_through_the_brain(browser):
    before, after = browser.execute_script(
        "const p = [...document.querySelectorAll('[data-kind=brain] .plot')].pop();"
        "const step = p._fullLayout.sliders[0].steps[0];"
        "const before = JSON.stringify(p.data[0].z);"
        "Plotly.restyle(p, step.args[0]);"
        "return [before, JSON.stringify(p.data[0].z)]"
    )
    assert before != after


def test_copy_buttons_copy(browser):
    origin = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    browser.execute_cdp_cmd("Browser.grantPermissions", origin)
    browser.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})
    button = browser.find_element("css selector", "button[data-copy=bibtex]")
    browser.execute_script("arguments[0].click()", button)
    wait(browser, "return document.getElementById('spoken').textContent !== ''", 5)
    assert (
        browser.execute_script("return document.getElementById('spoken').textContent") == "Copied"
    )
    copied = browser.execute_async_script(
        "const done = arguments[0]; navigator.clipboard.readText().then(done, e => done(String(e)))"
    )
    keys = ["spearman1910", "brown1910", "nilearn", "dupre2022", "efficientnet",
            "kriegeskorte2008rsa", "walther2016", "engramma", "numpy", "scipy"]  # fmt: skip
    assert copied == bibtex(keys)


def test_dark_theme_redraws_with_light_ink(browser):
    ink = "return getComputedStyle(document.querySelector('.plot .xtitle')).fill"
    before = browser.execute_script(ink)
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    wait(browser, f"return (() => {{ {ink} }})() !== '{before}'")
    brightness = [
        sum(int(v) for v in colour[4:-1].split(",")) / 3
        for colour in (before, browser.execute_script(ink))
    ]
    assert brightness[0] < 110 < 150 < brightness[1]


def test_phone_has_no_sideways_scrolling(browser):
    resize(browser, PHONE)
    settled(browser)
    width, wide = browser.execute_script(
        "const limit = document.documentElement.clientWidth;"
        "const hidden = e => e.closest('.scroll, .plot, .skip, .hidden');"
        "return [document.documentElement.scrollWidth, [...document.querySelectorAll('main *')]"
        ".filter(e => !hidden(e) && e.getBoundingClientRect().right > limit + 1)"
        ".map(e => e.tagName + '.' + e.className)]"
    )
    assert width <= PHONE
    assert wide == []


def test_no_console_errors_and_no_request_leaves(browser):
    """Runs last: what the whole session has asked for and complained about."""
    errors = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    assert errors == []
    addresses = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            addresses.append(message["params"]["request"]["url"])
    assert any(a.endswith("report.html") for a in addresses)
    assert [a for a in addresses if not a.startswith(("file:", "data:", "blob:", "chrome:"))] == []
