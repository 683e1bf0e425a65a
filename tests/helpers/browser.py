"""A browser without a window, for tests of pages: Debian's chromium, driven by selenium.

In: the files of pages. Out: a driver; what their scripts have complained of. Tests that want one
are skipped, by name, where there is none.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

WIDE, NARROW = (1280, 900), (390, 800)


@contextmanager
def browser(size: tuple[int, int] = WIDE) -> Iterator[Any]:
    """A chromium whose pages are so wide and high, in pixels."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no browser: apt install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason='pip install -e ".[browser]"')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={size[0]},{size[1]}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        # A window is never narrower than 500 pixels; what the page sees can be.
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        found.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        # No network: what a page asks for is an error that `complaints` tells.
        found.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        found.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield found
    finally:
        found.quit()


def opened(driver: Any, path: Path) -> Any:
    """The driver, on a file."""
    driver.get(path.resolve().as_uri())
    return driver


def complaints(driver: Any) -> list[str]:
    """What has been written to the console since it was asked last."""
    return [entry["message"] for entry in driver.get_log("browser")]


def dark(driver: Any, on: bool = True) -> None:
    """As if the system's theme were dark."""
    value = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [value]})


def overflow(driver: Any) -> int:
    """The pixels by which the page is wider than its window."""
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(driver.execute_script(wide))
