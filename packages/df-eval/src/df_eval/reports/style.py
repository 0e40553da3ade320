"""The look of the report: one inline style sheet, no request to anywhere."""

CSS = """
:root { --ink: #1f2937; --soft: #6b7280; --line: #e5e7eb; --paper: #ffffff; --page: #f3f4f6; --good: #047857;
  --bad: #b91c1c; --none: #6b7280; --accent: #1d4ed8; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, Helvetica,
  Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 60px; }
h1 { font-size: 26px; margin: 0 0 2px; }
h2 { font-size: 19px; margin: 38px 0 12px; padding-top: 6px; border-top: 2px solid var(--line); }
h2.first { border-top: 0; margin-top: 10px; }
h3 { font-size: 15px; margin: 22px 0 8px; }
p.lead { color: var(--soft); margin: 0 0 18px; }
p.warning { position: sticky; top: 0; z-index: 1; margin: 0 0 14px; padding: 8px 14px; background: #fef3c7;
  color: #92400e; border: 1px solid #f59e0b; border-radius: 8px; font-weight: 600; }
@media print { p.warning { position: fixed; left: 0; right: 0; } main { padding-top: 60px; } }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(240px, 100%), 1fr)); gap: 12px; }
.card { background: var(--paper); border: 1px solid var(--line); border-left: 5px solid var(--none); border-radius: 8px;
  padding: 11px 14px; }
.card.yes { border-left-color: var(--good); } .card.no { border-left-color: var(--bad); }
.card .name { font-size: 13px; color: var(--soft); line-height: 1.35; min-height: 36px; }
.card .value { font-size: 25px; font-weight: 650; margin: 2px 0 0; font-variant-numeric: tabular-nums; }
.card .detail { font-size: 12.5px; color: var(--soft); }
.tag { display: inline-block; font-size: 11.5px; font-weight: 650; border-radius: 4px; padding: 1px 7px; color: #fff;
  background: var(--none); vertical-align: 3px; margin-left: 6px; }
.tag.yes { background: var(--good); } .tag.no { background: var(--bad); }
.scroll { overflow-x: auto; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 11px; text-align: right; vertical-align: top; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; min-width: 150px;
  overflow-wrap: anywhere; background: var(--paper); box-shadow: 1px 0 0 var(--line); }
thead th, thead th:first-child { background: #f9fafb; font-weight: 600; color: #374151; vertical-align: bottom; }
tbody tr:last-child td { border-bottom: 0; }
td.generated, thead th.generated { background: #fef2f2; font-weight: 600; }
td .ci { display: block; min-width: 7em; color: var(--soft); font-size: 11.5px; font-weight: 400; }
.whole { white-space: nowrap; } .ci .whole { display: block; }
td.none { color: #9ca3af; cursor: help; }
th button { all: unset; cursor: pointer; display: inline-block; min-width: 7em; max-width: 16em;
  overflow-wrap: break-word; }
th button:focus-visible, input:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
th[aria-sort=ascending]::after { content: ' ▴'; } th[aria-sort=descending]::after { content: ' ▾'; }
p.together { display: flex; gap: 12px; align-items: center; position: sticky; bottom: 0; margin: 12px 0 0;
  padding: 8px 10px; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; }
p.together input { flex: 1; } p.together span { min-width: 50px; font-variant-numeric: tabular-nums; }
abbr { text-decoration: none; cursor: help; border-bottom: 1px dotted #9ca3af; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 14px; }
figure { margin: 0; background: var(--paper); border: 1px solid var(--line); border-radius: 8px; padding: 10px; }
figure.wide { grid-column: 1 / -1; }
figure img { width: 100%; height: auto; display: block; }
video { width: 100%; display: block; background: #000; border-radius: 4px; }
figcaption { font-size: 12.5px; color: var(--soft); padding: 7px 3px 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 5px 18px; font-size: 13.5px; background: var(--paper);
  border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; color: #374151; overflow-wrap: anywhere; }
details { margin-top: 12px; } summary { cursor: pointer; font-weight: 600; }
@media (max-width: 640px) {
  main { padding: 16px 10px 40px; }
  th, td { padding: 5px 4px; }
  th:first-child, td:first-child { min-width: 84px; }
  table { font-size: 11.5px; } thead th { font-size: 10.5px; } td .ci { font-size: 10px; min-width: 0; }
  th button { min-width: 0; max-width: 12em; } .ci .whole { white-space: normal; }
  dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; }
  figure { overflow-x: auto; } figcaption { position: sticky; left: 0; }
  figure img, figure svg { min-width: 560px; } figure.wide img { min-width: 820px; }
}
p.small { font-size: 13px; color: var(--soft); }
ul.small { font-size: 13px; color: var(--soft); margin: 8px 0; padding-left: 20px; }
"""
