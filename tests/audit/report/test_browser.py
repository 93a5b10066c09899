"""The page in a real browser: nothing is fetched, nothing sticks out, it prints."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
# Looks at the page from outside: the page itself has no script and forbids any.
WATCHER = """
<body><iframe id="page" style="border:0;width:{width}px;height:2000px" srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const page = document.getElementById("page").contentWindow, root = page.document.documentElement;
  const light = (css) => {{
    const parts = css.match(/[0-9.]+/g).slice(0, 3).map((x) => {{
      const c = x / 255;
      return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    }});
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  }};
  const ground = (element) => {{
    for (let e = element; e; e = e.parentElement) {{
      const color = page.getComputedStyle(e).backgroundColor;
      if (!color.endsWith(", 0)")) return color;
    }}
    return "rgb(255, 255, 255)";
  }};
  const contrast = (element) => {{
    const a = light(page.getComputedStyle(element).color), b = light(ground(element));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }};
  const texts = [...page.document.body.querySelectorAll("*")].filter((e) =>
    [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()));
  document.title = "SEEN" + JSON.stringify({{
    overflow: root.scrollWidth - root.clientWidth,
    width: root.clientWidth,
    fetched: page.performance.getEntriesByType("resource").map((e) => e.name)
      .filter((name) => !name.startsWith("data:")),
    images: [...page.document.images].map((i) => [i.alt.length, i.naturalWidth]),
    contrast: Math.min(...texts.map(contrast)),
    headings: page.document.querySelectorAll("h2").length,
  }}) + "END";
}};
</script>
"""

pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")


@pytest.fixture
def page(reported_run: Path) -> Path:
    return reported_run / "audit" / "report.html"


def browse(tmp_path: Path, *arguments: str) -> str:
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def seen(page: Path, tmp_path: Path, width: int) -> dict[str, Any]:
    watcher = tmp_path / "watcher.html"
    content = html.escape(page.read_text())
    watcher.write_text("<!doctype html>" + WATCHER.format(width=width, page=content))
    dump = browse(tmp_path, "--virtual-time-budget=20000", "--dump-dom", watcher.as_uri())
    found = re.search(r"SEEN(\{.*\})END", dump)
    assert found, dump[:300]
    result: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return result


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_fetched_sticks_out_or_is_hard_to_read(
    page: Path, tmp_path: Path, width: int
) -> None:
    found = seen(page, tmp_path, width)
    assert found["width"] == width
    assert found["fetched"] == []
    assert found["overflow"] <= 0
    assert len(found["images"]) >= 4
    assert all(alt > 30 and drawn > 0 for alt, drawn in found["images"])
    assert found["contrast"] >= 4.5  # WCAG 2.2, level AA
    assert found["headings"] >= 10


def test_it_prints(page: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.pdf"
    browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={out}", page.as_uri())
    content = out.read_bytes()
    assert content.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page[^s]", content))
    assert 4 <= pages <= 20
