"""The documentation in a real browser: rendering, interaction, narrow screens, keyboard use."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
import torch

from manual_grad import specs
from manual_grad.study import curves, texts

selenium = pytest.importorskip("selenium", reason="the browser is driven by selenium")

from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver import Chrome, ChromeOptions  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

ROOT = Path(__file__).parents[1]
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="there is no Chromium with its driver (Debian: apt install chromium chromium-driver)",
)
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1400,900"
)
PHONE, TABLET, DESKTOP, WIDE = 390, 768, 1400, 1920


class Pages:
    """A browser that opens the pages one by one."""

    def __init__(self, driver: Chrome, folder: Path) -> None:
        self.driver, self.folder = driver, folder

    def resize(self, width: int) -> None:
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def open(self, page: str, width: int = DESKTOP, dark: bool = False) -> None:
        self.resize(width)
        wishes = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get((self.folder / f"{page}.html").as_uri())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def path(self, chart: str) -> str:
        return self.run(f"return document.querySelector('.plots .{chart} .curve').getAttribute('d')")

    def tangent(self) -> list[float]:
        line = "document.querySelector('.plots .tangent')"
        return [float(self.run(f"return {line}.getAttribute('{end}')")) for end in ("y1", "y2")]


@pytest.fixture(scope="module")
def pages(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    options = ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = Chrome(options, Service(DRIVER))
    yield Pages(driver, site)
    driver.quit()


SOURCES = [path for path in (ROOT / "docs").rglob("*") if path.suffix in (".rst", ".md", ".ipynb")]
WRITTEN = [path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in sorted(SOURCES)]
ALL = [
    *(p for p in WRITTEN if p.split("/")[0] not in ("losses", "guides", "_build")),
    *(f"guides/{topic}" for topic in texts.topics()),
    *(f"losses/{loss}" for loss in specs.NAMES),
    "genindex",
    "py-modindex",
    "search",
]
# equations without a box, raw TeX, missing pictures; collapsed sections are opened first
FAULTS = r"""
document.querySelectorAll("details").forEach((d) => { d.open = true; });
const found = [];
for (const e of document.querySelectorAll("math")) {
  const { width, height } = e.getBoundingClientRect();
  if (!(width > 2 && height > 4)) found.push(`no box: ${e.textContent}`);
  if (e.querySelector("merror")) found.push(`error: ${e.textContent}`);
}
for (const e of document.querySelectorAll("img")) if (!e.naturalWidth) found.push(`no picture: ${e.src}`);
const words = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (words.nextNode()) {
  const node = words.currentNode;
  if (node.parentElement.closest("pre, code, script, style, noscript")) continue;
  if (/\\[a-z]{2,}|\$[^$]+\$/.test(node.data)) found.push(`TeX: ${node.data}`);
}
return found;
"""
# what does not fit: the page itself; equations, code; what scrolls and does not show it
TOO_WIDE = """
document.querySelectorAll("details").forEach((d) => { d.open = true; });
const [width] = arguments, found = [];
const report = (fault, e) =>
  found.push(`${fault}: ${e.tagName} ${e.className} ${e.scrollWidth}: ${e.textContent.slice(0, 80)}`);
for (const e of document.querySelectorAll("html, body, .page, .main, .content, article, section")) {
  if (e.scrollWidth > width) report("page", e);
}
for (const e of document.querySelectorAll("article *")) {
  if (e.scrollWidth <= e.clientWidth + 1 || !["auto", "scroll"].includes(getComputedStyle(e).overflowX)) continue;
  if (width >= 768 && e.closest(".equation")) report("equation", e);
  if (width >= 1400 && e.matches("pre")) report("code", e);
  if (!getComputedStyle(e).backgroundImage.includes("gradient")) report("hidden", e);
}
return found;
"""
AXE = """
const [options, done] = arguments;
const said = ({ id, nodes }) => nodes.map((n) => `${id}: ${n.target} ${n.failureSummary}`.slice(0, 300));
axe.run({ exclude: [".sidebar-drawer"] }, options).then((found) => done(found.violations.flatMap(said)));
"""


@pytest.mark.parametrize("page", ALL)
def test_page(pages: Pages, page: str) -> None:
    """Test that it is set without an error, can be used without eyes and without a mouse, and fits every screen."""
    pages.driver.get_log("browser")
    pages.open(page)
    assert pages.run(FAULTS) == []
    assert pages.driver.get_log("browser") == []
    if page.startswith("losses/"):
        assert pages.run("return document.querySelectorAll('math[displaystyle]').length") > 1
        assert len(pages.path("loss")) > 100
    assert violations(pages, {"rules": {"color-contrast": {"enabled": False}}}) == []
    for width in (DESKTOP, WIDE, TABLET, PHONE):  # beginning with the present one, since to set a page again takes long
        pages.resize(width)
        assert pages.run(TOO_WIDE, width) == [], width
    assert pages.run(FAULTS) == []
    smallest = "Math.min(99, ...[...document.querySelectorAll('article p, article li')].map(%s))"
    assert pages.run(f"return {smallest % 'e => parseFloat(getComputedStyle(e).fontSize)'}") >= 12


def violations(pages: Pages, options: dict[str, Any]) -> list[str]:
    """What axe finds on the open page."""
    axe = pytest.importorskip("axe_core_python", reason="accessibility is tested by axe: pip install axe-core-python")
    pages.run(Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8"))
    return pages.driver.execute_async_script(AXE, {"resultTypes": ["violations"], **options})


# a page of each kind, since contrast is a matter of the style, and slow to compute
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(
    "page",
    ["index", "api", "field", "benchmarks", "notebooks/softmax_cross_entropy", "guides/numerics", "losses/ctc_loss"],
)
def test_contrast(pages: Pages, page: str, dark: bool) -> None:
    pages.open(page, dark=dark)
    assert violations(pages, {"runOnly": ["color-contrast"]}) == []


def test_violations_are_found(pages: Pages) -> None:
    pages.open("losses/huber_loss")
    pages.run("""
        document.querySelector("img").removeAttribute("alt");
        document.querySelector("article p").style.color = "#999";
    """)
    assert {found.partition(":")[0] for found in violations(pages, {})} == {"image-alt", "color-contrast"}


def test_faults_are_found(pages: Pages) -> None:
    pages.open("losses/huber_loss")
    pages.run("""
        document.querySelector("math").style.display = "none";
        document.querySelector("article p").textContent = String.raw`\\frac{1}{2}`;
        document.querySelector("img").removeAttribute("src");
    """)
    assert {fault.partition(":")[0] for fault in pages.run(FAULTS)} == {"no box", "TeX", "no picture"}
    pages.open("losses/huber_loss", PHONE)
    assert pages.run(TOO_WIDE, PHONE) == []
    pages.run("document.querySelector('.plots').style.minWidth = '30rem'")
    assert any(fault.startswith("page: DIV content") for fault in pages.run(TOO_WIDE, PHONE))
    pages.open("losses/huber_loss")
    pages.run("""
        document.querySelector(".equation .scroll > *").style.minWidth = "100rem";
        document.querySelector("pre").style.whiteSpace = "pre";
        document.querySelector("pre").prepend("x ".repeat(200));
        document.querySelector(".results").style.minWidth = "100rem";
        document.querySelector(".scroll:has(.results)").style.background = "none";
    """)
    assert {fault.partition(":")[0] for fault in pages.run(TOO_WIDE, DESKTOP)} >= {"equation", "code", "hidden"}
    pages.run("console.error('found')")
    assert any("found" in entry["message"] for entry in pages.driver.get_log("browser"))


@pytest.mark.parametrize("loss", specs.NAMES)
def test_sliders_move_curve_and_tangent(pages: Pages, loss: str) -> None:
    pages.open(f"losses/{loss}")
    position = pages.one("[data-position]")
    before = pages.tangent(), position.get_attribute("aria-valuetext")
    position.send_keys(Keys.HOME)
    position.send_keys(*[Keys.ARROW_RIGHT] * 4)
    assert (pages.tangent(), position.get_attribute("aria-valuetext")) != before
    assert position.get_attribute("value") == "4"
    for name, slider in curves.curve_of(loss).sliders.items():
        control = pages.one(f"[data-slider={name}]")
        before = [pages.path(chart) for chart in ("loss", "gradient", "curvature")]
        position = control.get_attribute("value")
        control.send_keys(Keys.HOME if slider.default > slider.low else Keys.END)
        assert [pages.path(chart) for chart in ("loss", "gradient", "curvature")] != before, name
        pages.run("arguments[0].value = arguments[1]", control, position)  # where the others have an effect


@pytest.mark.parametrize("loss", ["huber_loss", "binary_cross_entropy", "ctc_loss", "triplet_margin_loss"])
def test_panel_says_what_the_loss_computes(pages: Pages, loss: str) -> None:
    """Test a point between those that were computed, with the last slider away from its default."""
    pages.open(f"losses/{loss}")
    curve = curves.curve_of(loss)
    (*_, (name, slider)) = curve.sliders.items()
    pages.one(f"[data-slider={name}]").send_keys(Keys.HOME)
    pages.one("[data-position]").send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 87)
    low, high = curve.span
    s = torch.tensor([low + (high - low) * 87 / 200], dtype=torch.float64)
    params = {k: v.default for k, v in curve.sliders.items()} | {name: slider.low}
    expected = [y.item() for y in curves.along(loss, s, params)]
    said = [float(x) for x in re.findall(r"-?[\d.]+", pages.one(".readout").text.replace("−", "-"))]
    assert said == pytest.approx(expected, rel=0.01, abs=0.002)


def test_panel_follows_the_pointer(pages: Pages) -> None:
    from selenium.webdriver import ActionChains

    pages.open("losses/huber_loss")
    before = pages.tangent()
    plots = pages.one(".plots")
    ActionChains(pages.driver).scroll_to_element(plots).move_to_element_with_offset(plots, -200, 0).click().perform()
    assert pages.tangent() != before


def test_panel_without_a_mouse_and_without_eyes(pages: Pages) -> None:
    pages.open("losses/hinge_embedding_loss")
    pages.one(".panel input").send_keys("")
    for control in pages.driver.find_elements(By.CSS_SELECTOR, ".panel input"):
        assert pages.driver.switch_to.active_element == control
        assert control.accessible_name
        assert control.aria_role == "slider"
        assert control.get_attribute("aria-valuetext")
        assert pages.run("return getComputedStyle(arguments[0]).outlineStyle", control) != "none"
        control.send_keys(Keys.TAB)
    plots = pages.one(".plots")
    assert plots.aria_role in ("img", "image")
    assert re.search(r"loss .*gradient .*curvature", plots.accessible_name)
    assert pages.one(".readout").get_attribute("aria-live") == "polite"
    assert pages.one("figure.curves img").get_attribute("alt")


def contrast(pages: Pages, selector: str, property: str) -> float:
    """The contrast between an element's colour and the page's background, as defined by WCAG."""

    def luminance(color: str) -> float:
        channels = [float(c) / 255 for c in re.findall(r"[\d.]+", color)[:3]]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    found = pages.run("return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]", selector, property)
    ground = pages.run("return getComputedStyle(document.body).backgroundColor")
    low, high = sorted((luminance(found), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_colors_can_be_told_from_the_background(pages: Pages, dark: bool) -> None:
    pages.open("losses/huber_loss", dark=dark)
    ground = pages.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(float, re.findall(r"[\d.]+", ground)[:3])) < 200) == dark
    for text in ("article p", "math", ".eqno", ".cited", ".readout", "figcaption", ".facts dt"):
        assert contrast(pages, text, "color") >= 4.5, text
    assert contrast(pages, ".plots text", "fill") >= 4.5
    for chart in ("loss", "gradient", "curvature"):
        assert contrast(pages, f".plots .{chart} .curve", "stroke") >= 3, chart


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served: the search loads pages, which a browser does not allow in files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("localhost", 0), partial(Quiet, directory=str(site))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("custom loss", "guides/custom-losses"),
        ("imbalanced classes", "guides/choosing-a-loss"),
        ("class weights", "guides/custom-losses"),
        ("label smoothing", "guides/information"),
        ("numerical stability", "guides/numerics"),
        ("log-sum-exp", "guides/information"),
        ("huber", "losses/huber_loss"),
    ],
)
def test_search_finds(pages: Pages, address: str, words: str, page: str) -> None:
    def found(driver: Chrome) -> bool:  # the results come one after the other
        links = driver.find_elements(By.CSS_SELECTOR, "#search-results li a")[:8]
        return any(f"/{page}.html" in link.get_attribute("href") for link in links)

    pages.driver.get(f"{address}/search.html?q={quote(words)}")
    assert WebDriverWait(pages.driver, 20, ignored_exceptions=[StaleElementReferenceException]).until(found)


def test_snippets_of_the_search_show_formulas(pages: Pages, address: str) -> None:
    def shown(driver: Chrome) -> bool:
        snippets = driver.find_elements(By.CSS_SELECTOR, "#search-results .context")
        return any("r = x − t" in snippet.text for snippet in snippets)

    pages.driver.get(f"{address}/search.html?q=residual")
    assert WebDriverWait(pages.driver, 20, ignored_exceptions=[StaleElementReferenceException]).until(shown)


def test_equation_and_code_lead_to_each_other(pages: Pages) -> None:
    pages.open("losses/cross_entropy")
    place = "const t = document.querySelector(':target').getBoundingClientRect(); return [t.top, t.bottom, innerHeight]"

    def inside(driver: Chrome) -> bool:
        top, bottom, height = driver.execute_script(place)
        return 0 <= top < bottom <= height

    scrolled = WebDriverWait(pages.driver, 5)  # scrolling takes a moment
    pages.run("document.querySelector('.beside .codeline .cite').click()")
    assert re.search(r"#equation-\d$", pages.driver.current_url)
    scrolled.until(inside)
    pages.run("document.querySelector('#equation-4 .cited a').click()")
    assert re.search(r"#line-\d+$", pages.driver.current_url)
    scrolled.until(inside)
    assert "(4)" in pages.one(":target").text
