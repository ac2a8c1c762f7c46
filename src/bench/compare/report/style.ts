/** What this page adds to the style of the run report. */
export const COMPARE_STYLE = `
.bars { display: grid; grid-template-columns: minmax(72px, max-content) 1fr minmax(74px, max-content); gap: 5px 12px;
  align-items: center; margin: 12px 0 8px; font-size: 13px; }
.bars .name { overflow-wrap: anywhere; line-height: 1.25; } .bars .of { text-align: right; font-variant-numeric: tabular-nums; line-height: 1.25; white-space: nowrap; }
.bars .of small { display: block; font-size: 12px; }
.bars .track { position: relative; height: 16px; background: var(--track); border-radius: 4px; overflow: hidden; }
.bars .track b { position: absolute; inset: 0 auto 0 0; border-radius: 4px; opacity: 0.75; }
.bars .track b.range { inset: 4px auto 4px auto; min-width: 4px; background: var(--yield); }
.bars .track u { position: absolute; top: 2px; bottom: 2px; width: 2px; margin-left: -1px; background: var(--ink); }
.bars .track i { position: absolute; top: 7px; height: 2px; background: var(--ink); }
.bars .track i::before, .bars .track i::after { content: ''; position: absolute; top: -3px; width: 2px; height: 8px; background: var(--ink); }
.bars .track i::before { left: 0; } .bars .track i::after { right: 0; }
.bars .ticks { position: relative; height: 16px; font-size: 12px; color: var(--soft); }
.ticks span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
h3 { font-size: 14px; margin: 14px 0 4px; }
.timelines .lanes { position: relative; display: grid; grid-template-columns: 116px 1fr; gap: 2px 10px; align-items: center; font-size: 12px; }
.timelines .lanes > span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: right; color: var(--soft); line-height: 15px; }
.timelines svg { display: block; width: 100%; height: 14px; background: var(--track); border-radius: 2px; shape-rendering: crispEdges; }
.timelines .marks { position: absolute; left: 126px; right: 0; top: 0; bottom: 0; pointer-events: none; }
.timelines .marks i.end { position: absolute; top: -2px; bottom: -2px; width: 0; border-left: 2px dashed var(--ink); margin-left: -1px; }
.legend i.rule.end { color: var(--ink); border-left-style: dashed; }
.timelines .axis { height: 18px; margin-top: 6px; } .timelines .axis > div { position: relative; height: 16px; color: var(--soft); }
.timelines .axis div span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.timelines .axis div span.first { transform: none; } .timelines .axis div span.last { transform: translateX(-100%); }
.card.wide { margin-top: 12px; } .card.wide td, .card.wide th { font-size: 13px; padding-right: 0; padding-left: 12px; }
.card.wide td.number, .card.wide tbody th { white-space: nowrap; } .card.wide th:first-child { padding-left: 0; }
.card.wide th .job { padding-left: 14px; font-weight: 400; color: var(--soft); }
tr.usual th, tr.usual td { font-weight: 650; border-top-color: var(--soft); }
table.differences td small { display: block; font-size: 12px; white-space: nowrap; } table.differences td span { white-space: nowrap; }
p.says { margin: 0; }
@media (max-width: 560px) { .timelines .lanes { grid-template-columns: 76px 1fr; } .timelines .marks { left: 86px; } }
`;
