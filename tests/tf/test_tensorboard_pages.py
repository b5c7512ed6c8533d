"""The real TensorBoard, looked at by a real browser: what was written is drawn, each thing under its tag.

With `--write-reports` the screenshots shown in the documentation are taken anew.
"""

import contextlib
import io
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import tensorflow as tf

import gradcheck
from gradcheck.tensorboard import SummaryWriter

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"),
]
PICTURES = Path(__file__).parents[2] / "docs" / "images"
PATIENCE = 30.0  # seconds for one thing to appear
LIMIT = 180.0  # seconds after which browser and server are killed, whatever they are waiting for
SIZE = (1400, 840)
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip

# TensorBoard's pages lie in shadow trees, which selectors do not enter. Each function walks through all of them.
WALKING = """
const walk = function* (node) {
  for (const element of node.querySelectorAll('*')) {
    yield element;
    if (element.shadowRoot) yield* walk(element.shadowRoot);
  }
};
const own = (e) => [...e.childNodes].filter(c => c.nodeType === 3).map(c => c.textContent).join('').trim();
const up = (e) => e.parentElement || e.getRootNode().host;
const inside = (e, selector) => [e, ...walk(e), ...(e.shadowRoot ? walk(e.shadowRoot) : [])]
  .filter(each => each.matches(selector));
"""
# The element with a text and, nearest around it, what is drawn there.
DRAWN_AT = (
    WALKING
    + """
const [text, selector] = arguments;
for (const element of walk(document)) {
  if (own(element) !== text || !element.getBoundingClientRect().width) continue;
  element.scrollIntoView({block: 'center'});
  for (let card = element; card; card = up(card)) {
    const found = inside(card, selector);
    if (found.length) return found.map(e => ({
      path: e.getAttribute('d') || '', width: e.naturalWidth || 0, height: e.naturalHeight || 0, text: e.textContent}));
  }
}
return [];
"""
)


@tf.custom_gradient
def mostly_right(x):
    factor = np.ones((6, 8), np.float32)
    factor[1, 2], factor[4, 5:7] = 0.5, 1.1
    return tf.sin(x), lambda upstream: upstream * tf.cos(x) * factor


def train(writer):
    """Thirty steps of a small network; in the last ones a gradient is NaN in places."""
    data = tf.random.stateless_normal([64, 6], seed=(1, 2))
    shapes = {"hidden/kernel": (6, 16), "hidden/bias": (16,), "out/kernel": (16, 1)}
    weights = {
        name: tf.Variable(tf.random.stateless_normal(shape, seed=(3, k)) / 3, name=name)
        for k, (name, shape) in enumerate(shapes.items())
    }
    for step in range(30):
        with tf.GradientTape() as tape:
            hidden = tf.tanh(data @ weights["hidden/kernel"] + weights["hidden/bias"])
            loss = tf.reduce_mean((hidden @ weights["out/kernel"] - tf.sin(data[:, :1])) ** 2)
        gradients = tape.gradient(loss, list(weights.values()))
        if step >= 25:
            spoiled = tf.tensor_scatter_nd_update(gradients[0], [[0, 0], [0, 1]], [np.nan, np.inf])
            gradients = [spoiled, *gradients[1:]]
        with writer.gradients(step, gradients, [*weights]):
            for gradient, weight in zip(gradients, weights.values(), strict=True):
                weight.assign_sub(0.3 * tf.where(tf.math.is_finite(gradient), gradient, 0.0))


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    logs = tmp_path_factory.mktemp("home") / "logs"
    with SummaryWriter(logs / "train") as writer:
        train(writer)
    with SummaryWriter(logs / "checks") as writer:
        x = tf.random.stateless_normal([6, 8], seed=(1, 1))
        writer.report(gradcheck.check_gradients(mostly_right, x, name="mostly_right"), 0)
        writer.trip(_trip(), 12)
    w = tf.Variable([2.0, 1.0], name="w")
    for name, theirs, rule in (
        ("adagrad", tf.compat.v1.train.AdagradOptimizer(0.6), gradcheck.optimizers.Adagrad(0.6)),
        ("momentum", tf.compat.v1.train.MomentumOptimizer(0.1, 0.8), gradcheck.optimizers.Momentum(0.1, 0.8)),
    ):
        gradcheck.compare_optimizers(
            theirs, rule, lambda: tf.reduce_sum((w - 3) ** 2), [w], 20, logdir=logs / f"optimizers_{name}"
        )
    return logs


def _trip():
    w = tf.Variable(0.75, name="w")
    watchdog = gradcheck.Watchdog("skip")

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.sqrt(w)
        w.assign_sub(0.4 * tape.gradient(loss, w))
        return loss

    watched = watchdog.watch(step)
    for _ in range(4):
        watched()
    return watchdog.report


@pytest.fixture(scope="module")
def address(logdir):
    """A TensorBoard on loopback; where it listens."""
    said = logdir.parent / "tensorboard.txt"
    with said.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", "--logdir", logdir.name, "--host", "127.0.0.1", "--port", "0"],
            cwd=logdir.parent, stdout=stream, stderr=stream,
        )  # fmt: skip
    stop = threading.Timer(LIMIT, server.kill)
    stop.start()
    try:
        yield until(lambda: re.search(r"http://127\.0\.0\.1:\d+", said.read_text()), said.read_text)[0]
    finally:
        stop.cancel()
        server.kill()
        server.wait(PATIENCE)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the Python package selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    for argument in (*QUIET, f"--window-size={SIZE[0]},{SIZE[1]}", f"--user-data-dir={profile}"):
        options.add_argument(argument)
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    stop = threading.Timer(LIMIT, service.process.kill)
    stop.start()
    try:
        driver.set_page_load_timeout(PATIENCE)
        driver.set_script_timeout(PATIENCE)
        yield driver
    finally:
        stop.cancel()
        with contextlib.suppress(OSError):
            driver.quit()


def until(look, explain):
    """What `look` finds, as soon as it finds anything."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"not there after {PATIENCE:g} s; there is: {explain()[-1500:]}")


@pytest.fixture
def page(browser, address, request):
    """Opens a page, waits for what is drawn under texts, and takes a picture of it."""

    def look(name, wanted, *, only="", picture=None, scroll=None):
        browser.get("about:blank")
        browser.get(f"{address}/#{name}" + (f"&tagFilter={quote(only)}" if only else ""))
        for text, (selector, enough) in wanted.items():

            def there(text=text, selector=selector, enough=enough):
                return enough(browser.execute_script(DRAWN_AT, text, selector))

            until(there, lambda: browser.execute_script(WALKING + "return [...walk(document)].map(own).join(' ')"))
        if scroll:
            browser.execute_script(DRAWN_AT, scroll, "*")
        time.sleep(0.7)  # until what was scrolled is drawn in its new place
        shot = browser.get_screenshot_as_png()
        if picture and request.config.getoption("--write-reports"):
            _keep(shot, PICTURES / f"{picture}.png")

    return look


def _keep(shot, path):
    """Store a screenshot with as few colours as it takes."""
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(64).save(path, optimize=True)


CHART = ("svg, canvas", bool)
ANY = ("*", bool)


def curves(least):
    """At least so many paths with numbers in them, and none that could not be drawn."""

    def enough(found):
        drawn = [each["path"] for each in found if each["path"].count(",") >= 8]
        assert not [path for path in drawn if re.search("NaN|Infinity", path)]
        return len(drawn) >= least

    return "path", enough


def picture_of(width, height):
    return "img", lambda found: [(each["width"], each["height"]) for each in found] == [(width, height)]


def table_with(*cells):
    return "table", lambda found: len(found) == 1 and set(cells) <= set(found[0]["text"].split())


def test_scalars(page):
    tags = ["gradient_norm/hidden/kernel", "gradient_nan/hidden/kernel", "checks/worst_error/mostly_right"]
    page("scalars", dict.fromkeys(tags, CHART), only=f"^({'|'.join(tags)})$")


def test_custom_scalars(page):
    page("custom_scalars", {"norm of all": CHART, "norm": CHART}, picture="tensorboard_custom_scalars")


def test_histograms_are_drawn_although_there_are_nan_and_infinity(page):
    tags = ["gradients/hidden/kernel", "gradients/out/kernel"]
    page("histograms", dict.fromkeys(tags, curves(20)), only="gradients/", picture="tensorboard_histograms")


def test_distributions(page):
    page("distributions", {"gradients/hidden/kernel": curves(5)}, only="gradients/")


def test_images(page):
    wanted = {
        "checks/error_map/mostly_right/inputs": picture_of(384, 288),
        "checks/taylor/mostly_right": picture_of(600, 450),
    }
    page("images", wanted, only="^checks/", picture="tensorboard_images")


def test_texts(page):
    wanted = {
        "checks/report/mostly_right": table_with("MISMATCH", "analytic"),
        "trips/step": table_with("step", "nan"),
    }
    page("text", wanted, only="^(checks|trips)/", picture="tensorboard_text", scroll="checks/report/mostly_right")


def test_hparams(page):
    page("hparams", {"Adagrad(0.6)": ANY, "Momentum(0.1, 0.8)": ANY}, picture="tensorboard_hparams")
