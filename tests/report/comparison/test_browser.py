"""The comparison page in a real browser: drawn, offline, on a phone, in the dark."""

import html
import json
import re
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason=f"none of {', '.join(NAMES)} is installed"
)
SECTIONS = (
    "summary plane curves track layers examples membership attacks cost missing "
    "provenance"
).split()
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--hide-scrollbars --virtual-time-budget=5000 --dump-dom"
).split()
# Only in the copies that the tests open; the page itself has no script.
PROBE = """<script>
addEventListener("load", () => {
  const box = (e) => { const b = e.getBoundingClientRect();
    return [b.left, b.top, b.width, b.height].map(Math.round); };
  const style = (e, name, part) => getComputedStyle(e, part)[name];
  const all = (q) => [...document.querySelectorAll(q)];
  const token = document.querySelector(".tokens .k");
  const quiet = style(token, "content", "::after");
  token.focus();
  const focused = style(token, "content", "::after");
  token.blur();
  document.querySelector("#numbers").click();
  const found = {
    sections: Object.fromEntries(all("section").map((e) => [e.id, box(e)])),
    figures: all("figure > svg").map(box),
    swatches: all(".swatch").filter((e) => e.checkVisibility()).map(box),
    wide: all(".wide").map((e) => [e.clientWidth, e.scrollWidth]),
    resources: performance.getEntriesByType("resource").map((e) => e.name),
    width: innerWidth,
    scroll: document.scrollingElement.scrollWidth,
    background: style(document.body, "backgroundColor"),
    ink: style(document.querySelector("figure svg text"), "fill"),
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    content: {quiet, focused, numbers: style(token, "content", "::after")},
    folded: all("details").length,
  };
  document.querySelector("#only-forget").click();
  found.kept = all(".example.retain").filter((e) => e.checkVisibility()).length;
  found.forgotten = all(".example.forget").filter((e) => e.checkVisibility()).length;
  all("details").forEach((e) => { e.open = true; });
  found.opened = document.scrollingElement.scrollWidth;
  const pre = document.createElement("pre");
  pre.id = "probe";
  pre.textContent = JSON.stringify(found);
  parent.document.body.append(pre);
});
</script></body>"""


def _opened(page, folder, *flags, width=1200):
    """What the probe found in a copy of the page, in a frame of `width` pixels.

    A frame, because no window of a desktop's browser is as narrow as a phone.
    """
    copy = folder / "page.html"
    text = page.read_text(encoding="utf-8")
    assert text.count("</body>") == 1
    text = html.escape(text.replace("</body>", PROBE))
    frame = f'<iframe style="width:{width}px;height:844px;border:0" srcdoc="{text}">'
    copy.write_text(f"<!DOCTYPE html><body>{frame}</iframe></body>", encoding="utf-8")
    command = [BROWSER, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags]
    done = subprocess.run(
        [*command, copy.as_uri()], capture_output=True, text=True, timeout=120
    )
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.fixture(scope="module")
def wide(comparison_page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wide")
    return _opened(comparison_page, folder, "--window-size=1300,900")


@pytest.fixture(scope="module")
def phone(comparison_page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("phone")
    return _opened(comparison_page, folder, "--window-size=600,900", width=390)


@pytest.fixture(scope="module")
def dark(comparison_page, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dark")
    flags = ("--window-size=1300,900", "--blink-settings=preferredColorScheme=0")
    return _opened(comparison_page, folder, *flags)


def test_every_section_and_figure_has_a_size(wide, phone):
    for found in (wide, phone):
        assert list(found["sections"]) == SECTIONS
        assert all(box[2] > 300 and box[3] > 40 for box in found["sections"].values())
        assert len(found["figures"]) == 13
        assert all(box[2] > 250 and box[3] > 100 for box in found["figures"])
        assert found["swatches"]
        assert all(box[2] > 20 and box[3] > 8 for box in found["swatches"])


def test_sections_stand_one_below_the_other(wide):
    tops = [top for _, top, _, _ in wide["sections"].values()]
    assert tops == sorted(tops)
    for (_, top, _, height), following in zip(
        wide["sections"].values(), tops[1:], strict=False
    ):
        assert top + height <= following


def test_nothing_is_fetched(wide, phone, dark):
    for found in (wide, phone, dark):
        assert found["resources"] == []


def test_the_page_does_not_scroll_sideways_on_a_phone(phone):
    assert phone["width"] == 390
    assert phone["scroll"] <= 390
    assert phone["opened"] <= 390  # nor with everything unfolded
    # The widest table does, in its box.
    assert any(inside > box for box, inside in phone["wide"])


def test_tables_and_figures_fit_a_desktop(wide):
    assert wide["scroll"] <= wide["width"] == 1200
    assert all(inside <= box for box, inside in wide["wide"])
    assert all(left >= 0 and left + w <= 1200 for left, _, w, _ in wide["figures"])


def test_the_dark_scheme_is_dark_and_figures_follow(wide, dark):
    def light(colour):
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    assert (wide["dark"], dark["dark"]) == (False, True)
    assert light(dark["background"]) < 60 < 200 < light(wide["background"])
    assert light(wide["ink"]) < 100 < 180 < light(dark["ink"])


def test_losses_show_on_focus_and_as_text(wide):
    content = wide["content"]
    assert content["quiet"] == "none"
    assert re.fullmatch(r'"\d\.\d\d" " nats"|"\d\.\d\d nats"', content["focused"])
    assert re.fullmatch(r'"\d\.\d\d"', content["numbers"])


def test_examples_are_folded_and_chosen_by_kind(wide):
    assert wide["folded"] >= 3
    assert wide["kept"] == 0
    assert wide["forgotten"] > 0
