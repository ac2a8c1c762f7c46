/** The report's style sheet: one page, light and dark, wide and narrow. */
export const STYLE = `
:root { color-scheme: light dark;
  --page: #f6f6f3; --card: #ffffff; --ink: #1d1d1b; --soft: #62625c; --rule: #e4e3dd; --grid: #ecebe6;
  --trainer: #c2680a; --critic: #8f5a1e; --engine: #2a6fdb; --yield: #c81e6a; --version: #7a48c8; --good: #0a8458;
  --idle: #dcdbd4; --track: #f1f0ec; --warn-ink: #7a4a00; --warn: #ffedcc; --starved: #c2271b; }
@media (prefers-color-scheme: dark) { :root {
  --page: #121316; --card: #1b1d21; --ink: #ececea; --soft: #a0a19c; --rule: #2e3137; --grid: #282b30;
  --trainer: #f0a33c; --critic: #c08a4e; --engine: #6aa5ff; --yield: #ff6ba6; --version: #b795f5; --good: #41c994;
  --idle: #3a3d44; --track: #23262b; --warn-ink: #ffd596; --warn: #4a3510; --starved: #ff7b6b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 56px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0; letter-spacing: -0.01em; overflow-wrap: anywhere; }
h2 { font-size: 19px; margin: 38px 0 4px; letter-spacing: -0.005em; }
h2 + p, .lead { max-width: 84ch; text-wrap: pretty; color: var(--soft); margin: 0 0 14px; }
.lead { margin-top: 12px; font-size: 16px; }
code, pre { font: 13px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }
small { color: var(--soft); font-size: 13px; font-weight: 400; }
.badges { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 12px; }
.badge { border: 1px solid var(--rule); background: var(--card); border-radius: 99px; padding: 2px 12px; font-size: 13px; }
.badge.software { background: var(--warn); border-color: transparent; color: var(--warn-ink); font-weight: 600; }
.badge.starved { border-color: var(--starved); color: var(--starved); font-weight: 600; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(166px, 1fr)); gap: 12px; margin-top: 22px; }
.tile, .card, .chart { background: var(--card); border: 1px solid var(--rule); border-radius: 12px; margin: 0; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 21px; line-height: 1.4; font-weight: 650; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tile span { display: block; color: var(--soft); font-size: 13px; line-height: 1.4; }
.tile span:first-child { color: var(--ink); font-weight: 600; }
.card { padding: 14px 16px; overflow-x: auto; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr)); gap: 12px; margin-top: 12px; }
.row.half { grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); }

.chart { padding: 12px 14px 8px; min-width: 0; }
.chart figcaption { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 8px; }
.chart > p { text-wrap: pretty; margin: 4px 0 4px; color: var(--soft); font-size: 13px; line-height: 1.4; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; font-size: 13px; color: var(--soft); }
figcaption .legend { margin-left: auto; }
.chart.tall figcaption .legend { margin-left: 0; width: 100%; }
.legend span { display: inline-flex; align-items: center; gap: 6px; }
.legend i { display: inline-block; width: 14px; height: 10px; border-radius: 2px; }
.legend i.line { height: 3px; }
.legend i.dot { width: 9px; height: 9px; border-radius: 50%; }
.legend i.area { background: var(--engine); opacity: 0.2; }
.legend i.bar { opacity: 0.35; }
.legend i.rule { width: 0; height: 12px; border-radius: 0; border-left: 2px solid; }
.legend i.rule.p50 { color: var(--ink); } .legend i.rule.p99 { color: var(--ink); border-left-style: dotted; }
.legend i.rule.bound { color: var(--good); border-left-style: dashed; }
.plot { display: grid; grid-template: 132px 18px auto / 46px 1fr; margin-top: 14px; font-size: 12px;
  color: var(--soft); font-variant-numeric: tabular-nums; }
.tall .plot { grid-template-rows: 240px 18px auto; }
.plot .y { position: relative; } .plot .y span { position: absolute; right: 8px; transform: translateY(50%); white-space: nowrap; line-height: 1; }
.plot .x { position: relative; grid-column: 2; } .plot .x span { position: absolute; top: 4px; transform: translateX(-50%); white-space: nowrap; line-height: 1; }
.plot .name { grid-column: 2; text-align: right; line-height: 1.3; }
.plot .canvas { position: relative; min-width: 0; touch-action: pan-y; }
.plot svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
svg path { fill: none; vector-effect: non-scaling-stroke; stroke-linejoin: round; }
svg .grid { stroke: var(--grid); stroke-width: 1px; } svg .line { stroke-width: 2px; }
svg .dots { stroke-width: 9px; stroke-linecap: round; }
svg .area { fill: var(--engine); opacity: 0.16; stroke: none; } svg .bar { opacity: 0.35; }
svg .rule { stroke: var(--ink); stroke-width: 1.5px; } svg .rule.p99 { stroke-dasharray: 2 4; }
svg .rule.bound { stroke: var(--good); stroke-width: 2px; stroke-dasharray: 7 4; }
.cursor { position: absolute; top: 0; bottom: 0; width: 1px; background: var(--soft); pointer-events: none; }
output { position: absolute; top: 4px; z-index: 1; background: var(--ink); color: var(--card); border-radius: 6px;
  padding: 3px 9px; font-size: 12px; pointer-events: none; max-width: 300px; width: max-content; }
output[hidden] { display: none; }

.tools { display: flex; flex-wrap: wrap; gap: 6px; margin: 0 0 10px; align-items: center; }
button { font: inherit; font-size: 13px; color: inherit; background: var(--track); border: 1px solid var(--rule);
  border-radius: 8px; padding: 4px 11px; min-height: 32px; cursor: pointer; }
button:hover { border-color: var(--soft); }
:focus-visible { outline: 2px solid var(--engine); outline-offset: 2px; border-radius: 4px; }
#timeline { position: relative; }
#timeline canvas { display: block; width: 100%; touch-action: pan-y; cursor: grab; }
#timeline canvas:active { cursor: grabbing; }
.card > .legend { margin: 10px 0 4px; }
.hint { color: var(--soft); font-size: 13px; margin: 6px 0 0; }

table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 12px 5px 0; border-top: 1px solid var(--rule); vertical-align: top; }
thead th { border-top: 0; color: var(--soft); font-weight: 500; font-size: 13px; white-space: nowrap; }
th { font-weight: 500; } th .legend { color: inherit; font-size: inherit; } td.number, th.number { text-align: right; white-space: nowrap; }
tr.sum th, tr.sum td { font-weight: 650; border-top: 2px solid var(--ink); }
td.why { color: var(--soft); font-size: 13px; }
.stack { display: flex; height: 22px; border-radius: 6px; overflow: hidden; background: var(--idle); margin: 6px 0; }
.stack i { display: block; }
.bar { display: grid; grid-template-columns: 1fr; gap: 2px; margin: 8px 0; }
.bar b { font-weight: 600; } .bar div { height: 16px; border-radius: 5px; min-width: 2px; }
.verdict { font-weight: 600; color: var(--good); } .verdict.bad { color: var(--yield); }
dl { display: grid; grid-template-columns: minmax(130px, max-content) 1fr; gap: 8px 20px; margin: 0; }
dt { font-weight: 600; } dd { margin: 0; color: var(--soft); max-width: 76ch; }
details { margin-top: 12px; } summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; margin: 12px 0 0; }
footer { margin-top: 40px; color: var(--soft); font-size: 13px; }
@media (max-width: 560px) {
  main { padding: 18px 12px 40px; } h1 { font-size: 22px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 8px; } .tile { padding: 10px 12px; } .tile b { font-size: 20px; }
  .tall .plot { grid-template-rows: 190px 18px auto; } .plot { grid-template-columns: 40px 1fr; }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: 10px; } td.why:not(.always) { display: none; }
  table { font-size: 13px; } th, td { padding-right: 7px; } }
@media print { .tools, .hint { display: none; } }
`;
