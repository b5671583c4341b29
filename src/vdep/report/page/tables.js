// Verdicts, differences, the study's tables and sheets.

function verdictCards(claims, evidence) {
  const judged = claims.filter((c) => c.verdict !== 'not evaluated'), open = claims.filter((c) => c.verdict === 'not evaluated');
  const paper = (c) => !c.source.startsWith('not in the paper');
  const groups = [['What the paper claims', judged.filter(paper)], ['Is it the image loss?', judged.filter((c) => !paper(c))]];
  return [
    groups.filter(([, list]) => list.length).map(([title, list]) => [h('h3', {}, title), h('div', { class: 'cards' }, list.map(verdictCard))]),
    open.length ? h('details', {}, h('summary', {}, `Not evaluated (${open.length})`), h('ul', { class: 'plain' }, open.map((c) => h('li', {}, c.claim, ' ', h('span', { class: 'quiet' }, `${c.model}: ${c.reason}`))))) : null,
    evidence ? h('p', { class: 'note' }, `Rules written before the runs: level ${evidence.level}`, evidence.margin ? `, effects below ${evidence.margin} of 100 points count as none` : '', evidence.minimum_seeds ? `, no verdict from fewer than ${evidence.minimum_seeds} seeds` : '', '. SHA-256 of the rules ', hash(evidence.rules.slice(0, 16)), '.') : null,
  ];
}

function verdictCard(c) {
  return h('article', { class: `card verdict ${OUTCOMES[c.verdict][0]}` },
    h('p', { class: 'head' }, badge(c.verdict), h('span', { class: 'quiet' }, c.model)),
    h('h4', {}, c.claim),
    c.estimate !== undefined ? [h('p', { class: 'estimate' }, h('strong', {}, signed(c.estimate)), h('span', {}, ` [${signed(c.low)}, ${signed(c.high)}]`)),
      intervalBar({ ...c, difference: c.estimate, outcome: c.verdict, scale: 1 }, Math.max(Math.abs(c.low), Math.abs(c.high), c.margin || 0) || 1, c.margin)] : null,
    h('p', {}, sentence(c.reason)),
    h('details', {}, h('summary', {}, 'On what'), facts([['decided on', c.on], ['seeds', c.seeds], ['who says so', c.source], ['margin', c.margin !== undefined ? fixed(c.margin) : ''], ...Object.entries(c.others || {})])));
}

const sentence = (text) => minus(text.charAt(0).toUpperCase() + text.slice(1)) + (/[.!?]$/.test(text) ? '' : '.');

function differencesTable(rows, evidence) {
  const arms = unique(rows.map((d) => [d.model, d.left, d.right].join('\n')));
  const place = h('div', {});
  const draw = (key) => {
    const shown = rows.filter((d) => [d.model, d.left, d.right].join('\n') === key).sort((a, b) => Boolean(b.pooled) - Boolean(a.pooled));
    const reach = Math.max(...shown.flatMap((d) => [d.difference, d.low, d.high].map((v) => Math.abs(v * (d.scale ?? 1))))) || 1;
    const [model, left, right] = key.split('\n');
    const seeds = Math.max(...shown.map((d) => d.seeds));
    show(place, frame(`Differences of ${right} and ${left}`, h('table', { class: 'numbers' },
      h('thead', {}, h('tr', {}, ['on', 'questions', left, right, 'difference', '95% interval', '', 'gained', 'lost', 'p, adjusted', 'paper', ''].map((name, i) => h('th', { scope: 'col', class: i ? 'right' : '' }, name)))),
      h('tbody', {}, shown.map((d, i) => h('tr', { class: [d.pooled ? 'primary' : '', i && shown[i - 1].pooled && !d.pooled ? 'first' : ''].join(' ') },
        h('th', { scope: 'row' }, d.label),
        h('td', {}, d.questions.toLocaleString('en')),
        h('td', {}, fixed(d.left_mean)), h('td', {}, fixed(d.right_mean)),
        h('td', { class: 'strong' }, signed(d.difference)),
        h('td', {}, `[${signed(d.low)}, ${signed(d.high)}]`),
        h('td', { class: 'bar' }, intervalBar(d, reach, evidence?.margin)),
        h('td', { class: 'gained' }, d.gained % 1 ? fixed(d.gained, 1) : d.gained.toLocaleString('en')), h('td', { class: 'lost' }, d.lost % 1 ? fixed(d.lost, 1) : d.lost.toLocaleString('en')),
        h('td', {}, d.p_adjusted !== undefined ? (d.p_adjusted < 0.001 ? '< 0.001' : fixed(d.p_adjusted, 3)) : '–'),
        h('td', {}, minus(d.published || '–')),
        h('td', { class: 'left' }, badge(d.outcome || 'no verdict'))))))),
    h('p', { class: 'note' }, `${right} minus ${left} on the same questions. Intervals are drawn in points of 100. `,
      seeds > 1 ? `Over ${seeds} seeds: t intervals; p is adjusted over the benchmarks (Holm).` : 'One seed: two checkpoints, no training noise. The intervals are over clusters of questions, and no verdict follows from them.'));
  };
  draw(arms[0]);
  return [h('h3', {}, 'Differences, benchmark by benchmark'), arms.length > 1 ? h('div', { class: 'controls' }, chooser('compare', arms.map((key) => {
    const [model, left, right] = key.split('\n');
    return { value: key, label: `${model}: ${right} against ${left}` };
  }), arms[0], draw, { 'data-control': 'pair' })) : null, place,
  evidence?.missing?.length ? h('details', {}, h('summary', {}, `Not compared (${evidence.missing.length})`), h('ul', { class: 'plain' }, evidence.missing.map((m) => h('li', {}, m)))) : null];
}

const LAYERS = [
  ['intervals', 'intervals', ['low', 'high', 'spread', 'n'], true],
  ['published', 'published', ['published', 'difference'], true],
  ['blind', 'without the picture', ['blind'], false],
];

function studyTable(table, origin) {
  const present = new Set(table.rows.flatMap((r) => r.cells.flatMap((c) => Object.keys(c.texts))));
  const layers = LAYERS.filter(([, , quantities]) => quantities.some((q) => present.has(q)));
  const shown = Object.fromEntries(layers.map(([name, , , on]) => [name, on]));
  const place = h('div', {});
  const best = (model, column) => {
    const rows = table.rows.filter((r) => r.model === model && !r.change && r.cells[column].texts.reproduced);
    return rows.length > 1 ? Math.max(...rows.map((r) => Number(r.cells[column].texts.reproduced))) : undefined;
  };
  const draw = () => show(place, frame(table.title, h('table', { class: 'numbers study' },
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'model'), h('th', { scope: 'col' }, 'run'), table.columns.map((c) => h('th', { scope: 'col', class: 'right' }, c)))),
    h('tbody', {}, table.rows.map((row, i) => h('tr', { class: [row.change ? 'change' : '', i && table.rows[i - 1].model !== row.model ? 'first' : ''].join(' ') },
      h('td', { class: 'left' }, i && table.rows[i - 1].model === row.model ? '' : row.model),
      h('th', { scope: 'row' }, row.run),
      row.cells.map((cell, column) => h('td', { class: cell.outcome ? `cell ${OUTCOMES[cell.outcome][0]}` : 'cell' }, cellButton(table, row, cell, column, shown, best(row.model, column), origin)))))))));
  draw();
  return h('article', { class: 'table-block', id: `table-${table.name}` },
    h('div', { class: 'table-head' }, h('h3', {}, table.title),
      h('div', { class: 'toggles' }, layers.map(([name, label]) => toggle(label, shown[name], (on) => { shown[name] = on; draw(); })))),
    place,
    table.notes.length ? h('details', { class: 'notes' }, h('summary', {}, `Notes (${table.notes.length})`), table.notes.map((n) => h('p', {}, n))) : null);
}

function cellButton(table, row, cell, column, shown, best, origin) {
  const t = cell.texts, number = t.reproduced;
  if (!number && !t.published) return h('span', { class: 'quiet' }, '–');
  const lines = [h('span', { class: !row.change && Number(number) === best ? 'value best' : 'value' }, minus(number || '–'), t.spread && shown.intervals ? ` ± ${t.spread}` : '')];
  if (shown.intervals && t.low) lines.push(h('span', { class: 'under' }, minus(`[${t.low}, ${t.high}]`)));
  if (shown.published && t.published) lines.push(h('span', { class: 'under' }, `paper ${minus(t.published)}`));
  if (shown.blind && t.blind) lines.push(h('span', { class: 'under' }, `blind ${minus(t.blind)}`));
  return h('button', { type: 'button', class: 'number', 'aria-label': `${row.model} ${row.run}, ${table.columns[column]}: ${number || 'none'}. Where it comes from`,
    onclick: () => openDialog(`${row.model} / ${row.run}: ${table.columns[column]}`,
      facts([...Object.entries(t).map(([name, text]) => [name.replaceAll('_', ' '), minus(text)]), ['verdict', cell.outcome && badge(cell.outcome)]]),
      row.change ? h('p', {}, 'The difference of the two rows above, of the numbers as they are shown.') : null,
      (cell.sources || []).map((file) => provenance(file, origin))) }, lines);
}

function provenance(file, origin) {
  const s = origin?.scores?.[file];
  return h('section', { class: 'provenance' }, h('h4', {}, file), s ? facts([
    ['checkpoint', s.checkpoint], ['benchmark', s.benchmark], ['questions', s.questions.toLocaleString('en')],
    ['weights', hash(s.weights)], ['recipe', hash(s.recipe)], ['samples', hash(s.samples)], ['judge', s.judge], ['time', s.hours !== undefined ? duration(s.hours) : ''],
  ]) : h('p', {}, 'It is no longer there.'));
}

const hash = (text) => h('code', { class: 'hash', title: text }, text);
const duration = (hours) => (hours >= 1 ? `${hours.toFixed(1)} h` : hours >= 1 / 60 ? `${(hours * 60).toFixed(1)} min` : `${Math.round(hours * 3600)} s`);

function sheetTable(sheet, folded) {
  const right = new Set(sheet.numbers || []);
  const place = h('div', {});
  let limit = 40;
  const draw = () => show(place, frame(sheet.title, h('table', { class: 'numbers sheet' },
    h('thead', {}, h('tr', {}, sheet.columns.map((c, i) => h('th', { scope: 'col', class: right.has(i) ? 'right' : '' }, c.replaceAll('_', ' '))))),
    h('tbody', {}, sheet.rows.slice(0, limit).map((r) => h('tr', {}, r.map((text, i) => h('td', { class: right.has(i) ? '' : 'left' }, right.has(i) ? minus(text) : text))))))),
  sheet.rows.length > limit ? h('button', { type: 'button', class: 'more', onclick: () => { limit = Infinity; draw(); } }, `Show all ${sheet.rows.length} rows`) : null);
  draw();
  if (folded) return h('details', {}, h('summary', {}, `${sheet.title} (${sheet.rows.length} rows)`), place);
  return h('article', { class: 'table-block' }, h('h3', {}, sheet.title), sheet.note ? h('p', { class: 'note' }, sheet.note) : null, place);
}
