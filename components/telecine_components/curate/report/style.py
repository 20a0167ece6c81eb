"""The page's style: readable in light and dark, on paper and on a small screen. Blue is kept, orange is rejected."""

CSS = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #ffffff; --ink: #1c2126; --quiet: #5d6872; --rule: #dfe3e6;
  --track: #eceff1; --kept: #0f6bb3; --lost: #d9600b; --on: #ffffff; --act: #0f5c9c; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181c; --card: #1c2228; --ink: #e6e9ec; --quiet: #9aa5af;
  --rule: #333b43; --track: #2a3138; --kept: #5fb0f0; --lost: #ff9a4d; --on: #10151b; --act: #8ac4f5; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0 auto; padding: 1.5rem 1.25rem 4rem; max-width: 96rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 .25rem; font-size: 1.6rem; }
h2 { margin: 2.2rem 0 .5rem; font-size: 1.2rem; }
p { margin: .3rem 0 .7rem; }
.quiet { color: var(--quiet); font-size: .88rem; }
code { font-size: .82rem; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 1rem 0 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; padding: .6rem .9rem; }
.tile b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; max-width: 62rem; font-size: .92rem; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
thead th { color: var(--quiet); font-weight: 600; }
.funnel .loss th { padding-left: 1.6rem; font-weight: 400; }
.funnel th { width: 1%; }
.number { text-align: right; font-variant-numeric: tabular-nums; width: 1%; }
th.number { text-align: right; }
.bar { min-width: 8rem; width: 100%; }
.bar svg { display: block; width: 100%; height: .95rem; background: var(--track); border-radius: .15rem; }
.left { fill: var(--kept); }
.lost { fill: var(--lost); }
.loss .left { fill: var(--kept); opacity: .38; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(12.5rem, 1fr)); gap: .8rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: .5rem; padding: .5rem .7rem;
  }
figure svg { width: 100%; height: 4.2rem; display: block; border-bottom: 1px solid var(--quiet); }
figcaption { font-size: .88rem; line-height: 1.3; margin-bottom: .3rem; }
figcaption span { display: block; min-height: 1.15rem; font-size: .78rem; }
.axis { display: flex; justify-content: space-between; gap: .4rem; white-space: nowrap; font-size: .78rem;
  font-variant-numeric: tabular-nums; }
.limit { stroke: var(--ink); stroke-width: 1.6; stroke-dasharray: 5 3; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; list-style: none; margin: .3rem 0; padding: 0;
  font-size: .88rem; }
.legend li::before { content: ""; display: inline-block; width: .8rem; height: .8rem; margin: 0 .4rem -.05rem 0; }
.key-left::before { background: var(--kept); }
.key-lost::before { background: var(--lost); }
.key-limit::before { border-left: 2px dashed var(--ink); margin-right: 0 !important; }
button, input, select { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--quiet);
  border-radius: .35rem; padding: .3rem .6rem; }
button { cursor: pointer; }
button:disabled { opacity: .4; cursor: default; }
button.plain { border: none; background: none; color: var(--act); padding: .1rem 0; text-align: left;
  text-decoration: underline; text-underline-offset: .15em; }
:focus-visible { outline: 3px solid var(--act); outline-offset: 2px; }
.tools { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; align-items: end; gap: .5rem 1rem;
  background: var(--paper); padding: .6rem 0; border-bottom: 1px solid var(--rule); }
.tools label { display: flex; flex-direction: column; font-size: .8rem; color: var(--quiet); }
.tools input, .tools select { max-width: 16rem; }
.pager { margin-left: auto; display: flex; align-items: center; gap: .6rem; font-variant-numeric: tabular-nums; }
.cards { list-style: none; margin: 1rem 0; padding: 0; display: grid; gap: 1rem; align-items: start;
  grid-auto-flow: dense; grid-template-columns: repeat(auto-fill, minmax(min(23rem, 100%), 1fr)); }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: .6rem; padding: .7rem; min-width: 0; }
.card img { display: block; width: 100%; max-height: 6rem; object-fit: contain; object-position: left;
  border-radius: .3rem; }
.card:has(details[open]) { grid-column: 1 / -1; }
.card:has(details[open]) img { width: min(100%, 64rem); max-height: 16rem; }
.card:has(details[open]) .scores { grid-template-columns: repeat(auto-fill, minmax(min(13rem, 100%), 1fr)); }
.card p { margin: .45rem 0; overflow-wrap: anywhere; }
.badge { display: inline-block; background: var(--lost); color: var(--on); border-radius: .3rem; padding: 0 .5rem;
  font-size: .85rem; font-weight: 600; margin-right: .5rem; max-width: 100%; overflow-wrap: anywhere; }
.badge.is-kept { background: var(--kept); }
.scores { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: .1rem 1.1rem; font-size: .8rem; }
.score { display: grid; grid-template-columns: minmax(0, 5.6rem) minmax(0, 1fr) 3.2rem; gap: .4rem;
  align-items: center; }
.score span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.score b { text-align: right; font-weight: 400; font-variant-numeric: tabular-nums; }
.score.breaks b { color: var(--lost); font-weight: 700; }
.track { position: relative; height: .55rem; background: var(--track); border-radius: .15rem; }
.fill { position: absolute; inset: 0 auto 0 0; background: var(--kept); border-radius: .15rem; }
.breaks .fill { background: var(--lost); }
.tick { position: absolute; top: -.15rem; bottom: -.15rem; width: 2px; background: var(--ink); }
summary { cursor: pointer; font-size: .88rem; color: var(--act); margin-top: .4rem; }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .1rem .8rem; margin: .4rem 0;
  font-size: .84rem; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
kbd { border: 1px solid var(--rule); border-radius: .25rem; padding: 0 .35rem; font: .85em ui-monospace, monospace; }
@media (max-width: 40rem) { .tools { position: static; } .pager { margin-left: 0; } .bar { min-width: 4rem; }
  .funnel td:nth-child(3), .funnel th:nth-child(3), .funnel td:last-child, .funnel th:last-child { display: none; }
  .funnel .loss th { padding-left: .9rem; white-space: normal; min-width: 10rem; }
  th, td { padding: .2rem .35rem; } .keys { display: none; } .scores { grid-template-columns: 1fr; }
  .tools label { flex: 1 1 9rem; } .tools input, .tools select { max-width: none; width: 100%; } }
@media print { .tools, .keys { display: none; } }
"""
