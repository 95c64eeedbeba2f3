"""Chromium without a screen, driven by ChromeDriver."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from servers import Missing
from tests.support import ROOT, needs

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    # So that Chromium itself asks nothing of anyone.
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
    *("--no-default-browser-check", "--hide-scrollbars"),
)
#: The package of which the script axe.min.js is taken, and nothing else.
AXE = "axe-playwright-python==0.1.8"


class Browser:
    """One window."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    @contextmanager
    def new_tab(self) -> Iterator[None]:
        """Use a new tab in the block, without what the others keep in their sessionStorage."""
        first = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        yield
        self.driver.close()
        self.driver.switch_to.window(first)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of a function, and return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """Return the text of the first element, also of a hidden one."""
        return str(self.run("return document.querySelector(arguments[0]).textContent", selector))

    def set_media(self, **features: str) -> None:
        """Have the page see other preferences of its reader: ``prefers_color_scheme="dark"``."""
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": given})

    def set_size(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def set_scripts(self, allowed: bool) -> None:
        """Switch JavaScript on or off."""
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    def set_offline(self, offline: bool) -> None:
        """Have all requests fail from now on, or none."""
        conditions = {"offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        self.driver.execute_cdp_cmd("Network.enable", {})
        self.driver.execute_cdp_cmd("Network.emulateNetworkConditions", conditions)

    def screenshot(self) -> bytes:
        """Return a picture of the whole page, as PNG."""
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        return base64.b64decode(taken["data"])

    def violations(self) -> list[dict[str, Any]]:
        """Return what axe-core finds wrong with the page, each with the elements."""
        self.run(axe_script())
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document).then(done, error => done({error: String(error)}))"
        )
        return [
            {"rule": each["id"], "help": each["help"], "nodes": [node["html"] for node in each["nodes"]]}
            for each in found["violations"]
        ]

    def complaints(self) -> list[str]:
        """Return what the console had to report since the last call: errors, and violations of the CSP."""
        return [each["message"] for each in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the URLs that were requested since the last call."""
        messages = [json.loads(each["message"])["message"] for each in self.driver.get_log("performance")]
        return [
            each["params"]["request"]["url"]
            for each in messages
            if each["method"] == "Network.requestWillBeSent"
        ]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser, with a profile of its own."""
    needs.chromium()
    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = Chrome(options, ChromeService(shutil.which("chromedriver")))
        try:
            yield Browser(driver)
        finally:
            driver.quit()


def axe_script() -> str:
    """Return axe-core, downloaded where that is not done yet."""
    folder = ROOT / ".cache" / AXE.replace("==", "-")
    if not (folder / "axe.min.js").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            options = ["-q", "--disable-pip-version-check", "--no-deps", f"--dest={scratch}"]
            try:
                subprocess.run([sys.executable, "-m", "pip", "download", *options, AXE], check=True)
            except subprocess.CalledProcessError as error:
                raise Missing(f"missing: {AXE}, which pip could not download") from error
            (wheel,) = Path(scratch).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                script = Path(scratch, "axe.min.js")
                script.write_bytes(archive.read("axe_playwright_python/axe.min.js"))
                script.rename(folder / "axe.min.js")
    return (folder / "axe.min.js").read_text()
