"""The page's style: readable in light and dark, on paper and on a small screen."""

CSS = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #ffffff; --ink: #1c2126; --quiet: #5d6872; --rule:
  #dfe3e6; --good: #1a7f4b; --bad: #b3392f; --c0: #2f6fdd; --c1: #d9661f; --c2: #7a828a; --c3: #8a4fbd; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --card: #1c2228; --ink: #e6e9ec; --quiet: #9aa5af;
  --rule: #333b43; --good: #4cc38a; --bad: #ff8a7a; --c0: #6ea8ff; --c1: #ff9f5a; --c2: #9aa5af; --c3: #c79bff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.7rem; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.2rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.quiet { color: var(--quiet); }
code { font-size: .85em; overflow-wrap: anywhere; }
.good { color: var(--good); }
.bad { color: var(--bad); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin: 1.25rem 0;
  }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; padding: .75rem 1rem; }
.tile b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--rule); vertical-align: top; }
thead th { color: var(--quiet); font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
th.number { text-align: right; }
.bars th { font-weight: 400; white-space: nowrap; width: 1%; }
.bars .number { width: 1%; }
.bar span { display: block; height: .9rem; margin-top: .3rem; border-radius: .2rem; min-width: 1px; background:
  var(--c2); }
.bar span.kept { background: var(--good); }
.bar span.rejected { background: var(--bad); }
svg { width: 100%; height: auto; background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; }
svg text { font: 12px system-ui, sans-serif; fill: var(--quiet); }
.grid { stroke: var(--rule); }
.line { fill: none; stroke-width: 1.8; }
.level { stroke-width: 1.5; stroke-dasharray: 6 4; }
.line-0 { stroke: var(--c0); }
.line-1 { stroke: var(--c1); }
.line-2 { stroke: var(--c2); }
.line-3 { stroke: var(--c3); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; list-style: none; margin: .5rem 0; padding: 0;
  font-size: .85rem; }
.legend li::before { content: ""; display: inline-block; width: 1rem; height: .25rem; margin: 0 .45rem .2rem 0; }
.key-0::before { background: var(--c0); }
.key-1::before { background: var(--c1); }
.key-2::before { background: var(--c2); }
.key-3::before { background: var(--c3); }
summary { cursor: pointer; margin: .6rem 0; }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .9rem; }
figure { margin: 0; }
video, .sheet { width: 100%; border-radius: .4rem; display: block; background: #000; }
.sheet { background: none; height: auto; }
figcaption { font-size: .82rem; color: var(--quiet); margin-top: .3rem; }
"""
