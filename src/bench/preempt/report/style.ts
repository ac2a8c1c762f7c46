/** What this page adds to the style of the run report. */
export const BENCH_STYLE = `
.chart.bench { margin-top: 12px; }
.bench .plot { grid-template: 340px 20px auto / 62px 1fr; }
.bench .legend i { color: var(--soft); background: none; border-radius: 0; }
.bench .legend i.line { height: 0; border-top: 3px solid; } .bench .legend i.line.dotted { border-top-style: dotted; }
.bench .legend i.dot { width: 9px; height: 9px; border-radius: 50%; background: currentColor; }
.bench .legend i.dot.ring { background: none; border: 2px solid; }
.bench .legend i.area { background: currentColor; opacity: 0.12; }
.bench .legend i.rule.bound { color: inherit; }
svg .line.dotted { stroke-dasharray: 1 5; stroke-linecap: round; stroke-width: 2.5px; } svg .line.thin { stroke-width: 1px; }
svg .dots.fine { stroke-width: 4px; opacity: 0.45; } svg .dots.hole { stroke-width: 4px; }
svg .area.band { fill: var(--ink); opacity: 0.08; }
.plot .label { position: absolute; transform: translateY(-50%); font-size: 12px; line-height: 14px; white-space: nowrap;
  color: var(--ink); pointer-events: none; text-shadow: 0 0 3px var(--card), 0 0 3px var(--card), 0 0 3px var(--card); }
.spot { position: absolute; width: 13px; height: 13px; margin: -7px 0 0 -7px; border: 2px solid var(--ink); border-radius: 50%; pointer-events: none; }
.bench output { max-width: min(100%, 460px); }
.spot[hidden] { display: none; }
.card.wide { margin-top: 12px; } .card.wide td, .card.wide th { padding-right: 0; padding-left: 12px; white-space: nowrap; font-size: 13px; }
.card.wide th:first-child { padding-left: 0; position: sticky; left: -16px; background: var(--card); box-shadow: -16px 0 var(--card); padding-right: 8px; }
.card.wide .edge { padding-left: 22px; } .card.wide th.group { padding-left: 22px; text-align: right; color: var(--ink); padding-bottom: 0; }
.card.wide thead tr + tr th { border-top: 0; padding-top: 0; }
tr.usual th, tr.usual td { font-weight: 650; }
.waste { display: grid; grid-template-columns: minmax(150px, 200px) 1fr minmax(220px, 330px); gap: 2px 14px; align-items: center;
  border-top: 1px solid var(--rule); padding: 3px 0; }
.card > .legend + .waste { border-top: 0; margin-top: 6px; }
.waste .stack { height: 14px; margin: 0; border-radius: 4px; background: var(--track); } .waste .of { text-align: right; font-variant-numeric: tabular-nums; }
.card > p:first-child { margin-top: 0; }
.promises th:first-child { min-width: 44%; width: 58%; }
.plot .label.narrow { display: none; }
td .verdict, td .soft { white-space: nowrap; } .soft { color: var(--soft); }
@media (max-width: 760px) { .waste { grid-template-columns: 1fr auto; } .waste .stack { grid-column: 1 / -1; grid-row: 2; } .waste .of small { display: none; } }
@media (max-width: 560px) { .bench .plot { grid-template: 270px 20px auto / 54px 1fr; } .plot .label.wide { display: none; } .plot .label.narrow { display: inline; } }
`;
