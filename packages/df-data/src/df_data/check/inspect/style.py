"""The page's looks and its one script: plain CSS, and lines that switch what is drawn over images and sort cards."""

from __future__ import annotations

import base64
import hashlib

from df_data.check.inspect.sift import SIFT_SCRIPT

CSS = """
:root { --ink: #1c2430; --soft: #667085; --line: #dfe3ea; --paper: #f6f7f9; --card: #fff; --blue: #2f6fde;
  --band: #bcd2f7; --red: #d1383d; --orange: #f08a00; --green: #17a673; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 14px/1.45 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 0 20px 60px; }
h1 { font-size: 24px; margin: 28px 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 10px; }
h3 { font-size: 15px; margin: 0; overflow-wrap: anywhere; }
p { margin: 4px 0; }
a { color: var(--blue); }
.soft, .notes { color: var(--soft); }
.bar { position: sticky; top: 0; z-index: 2; background: var(--paper); border-bottom: 1px solid var(--line);
  padding: 8px 0; }
.bar a, .bar label { margin-right: 18px; white-space: nowrap; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px;
  margin: 0 0 16px; }
.totals { display: grid; grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: 10px; margin: 14px 0; }
.totals div { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 8px 12px; }
.totals b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.head { display: flex; justify-content: space-between; gap: 16px; flex-wrap: wrap; margin-bottom: 8px; }
.tag { display: inline-block; border-radius: 10px; padding: 0 8px; background: #eef1f6; margin: 0 0 2px 6px;
  font-size: 12px; font-weight: 400; white-space: nowrap; }
.tag.bad { background: #fbe3e4; color: #9d1f24; }
.timeline { display: block; width: 100%; border-radius: 4px; }
.timeline text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.timeline text.frame { fill: #fff; stroke: #0008; stroke-width: 2.5px; paint-order: stroke; }
.field { fill: #f3f5f8; } .wave { fill: #8fa3bf; } .axis { stroke: #aab2bf; }
.mouth { stroke: var(--orange); stroke-width: 2.2; stroke-linejoin: round; }
.moment { stroke: #c6ccd6; } .word { fill: #e6eaf1; }
.mouthbox { fill: none; stroke: #ffd23f; stroke-width: 1.6; vector-effect: non-scaling-stroke; }
.keypoints circle { fill: var(--green); stroke: #fff; stroke-width: .7; vector-effect: non-scaling-stroke; }
.no-boxes .mouthbox, .no-keypoints .keypoints, .no-usual .clip .score:not(.out) { display: none; }
.no-usual .usual { display: block; } .usual { display: none; color: var(--soft); margin: 8px 0 0; }
.below { display: flex; gap: 18px; margin-top: 10px; align-items: flex-start; flex-wrap: wrap; }
.below video { width: 190px; background: #000; border-radius: 4px; }
.below .facts { flex: 1 1 420px; min-width: min(300px, 100%); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 1px 12px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scores { display: grid; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); gap: 0 18px; margin-top: 10px;
  font-size: 12.5px; }
.score { display: grid; grid-template-columns: 1fr 60px 70px; align-items: center; gap: 6px;
  border-bottom: 1px solid #f0f2f5; padding: 1px 0; }
.score span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.score b { font-weight: 500; white-space: nowrap; text-align: right; font-variant-numeric: tabular-nums; }
.score svg { width: 60px; height: 10px; }
.score .band { fill: var(--band); } .score circle { fill: var(--blue); }
.score.out b { color: var(--red); font-weight: 700; } .score.out circle { fill: var(--red); }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); gap: 14px 20px; }
.charts figure { margin: 0; }
.charts figcaption { font-size: 12.5px; display: flex; justify-content: space-between; gap: 8px; }
.histogram { width: 100%; display: block; } .histogram text { font: 10px system-ui, sans-serif; fill: var(--soft); }
.accepted { fill: var(--blue); } .rejected { fill: var(--red); }
.rejects { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(350px, 100%), 1fr)); gap: 12px; }
.rejects .card { margin: 0; } .rejects img { max-width: 100%; height: 104px; object-fit: contain; object-position: left;
  border-radius: 4px; display: block; margin-bottom: 8px; }
.rejects .none { height: 104px; display: grid; place-items: center; background: #eef1f6; color: var(--soft);
  border-radius: 4px; margin-bottom: 8px; }
.rejects .scores { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); }
.rejects .score { grid-template-columns: 1fr auto; }
.reasons .tag { font-size: 13px; padding: 1px 10px; margin: 0 8px 12px 0; }
.sift { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; margin: 0 0 12px; }
.sift[hidden], .card[hidden] { display: none; }
.sift select { max-width: 190px; } .sift select, .sift input { font: inherit; padding: 2px 4px; }
.sift output { color: var(--soft); } .by { color: var(--blue); font-weight: 600; margin-left: 8px; font-size: 13px; }
table { border-collapse: collapse; width: 100%; } th { text-align: left; font-weight: 600; }
td, th { border-bottom: 1px solid var(--line); padding: 4px 12px 4px 0; vertical-align: top; overflow-wrap: anywhere; }
@media print { .bar { position: static; } .card { break-inside: avoid; } }
"""

SCRIPT = f"""
for (const box of document.querySelectorAll("input[data-hides]"))
  box.addEventListener("change", () => document.body.classList.toggle(box.dataset.hides, !box.checked));
{SIFT_SCRIPT}"""


def content_policy() -> str:
    """Return the page's content security policy: nothing from any network, and no script but :data:`SCRIPT`."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode("utf-8")).digest()).decode("ascii")
    return (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
