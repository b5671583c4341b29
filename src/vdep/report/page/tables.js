// The study's tables with the origin of every number, and sheets as they were written.

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
  const draw = () =>
    show(
      place,
      frame(
        table.title,
        h(
          'table',
          { class: 'numbers study' },
          h(
            'thead',
            {},
            h(
              'tr',
              {},
              h('th', { scope: 'col' }, 'model'),
              h('th', { scope: 'col' }, 'run'),
              table.columns.map((c) => h('th', { scope: 'col', class: 'right' }, c)),
            ),
          ),
          h(
            'tbody',
            {},
            table.rows.map((row, i) =>
              h(
                'tr',
                { class: [row.change ? 'change' : '', i && table.rows[i - 1].model !== row.model ? 'first' : ''].join(' ') },
                h('td', { class: 'left' }, i && table.rows[i - 1].model === row.model ? '' : row.model),
                h('th', { scope: 'row' }, row.run),
                row.cells.map((cell, column) =>
                  h(
                    'td',
                    { class: cell.outcome ? `cell ${OUTCOMES[cell.outcome][0]}` : 'cell' },
                    cellButton(table, row, cell, column, shown, best(row.model, column), origin),
                  ),
                ),
              ),
            ),
          ),
        ),
      ),
    );
  draw();
  return h(
    'article',
    { class: 'table-block', id: `table-${table.name}` },
    h(
      'div',
      { class: 'table-head' },
      h('h3', {}, table.title),
      h(
        'div',
        { class: 'toggles' },
        layers.map(([name, label]) =>
          toggle(label, shown[name], (on) => {
            shown[name] = on;
            draw();
          }),
        ),
      ),
    ),
    place,
    table.notes.length
      ? h(
          'details',
          { class: 'notes' },
          h('summary', {}, `Notes (${table.notes.length})`),
          table.notes.map((n) => h('p', {}, n)),
        )
      : null,
  );
}

function cellButton(table, row, cell, column, shown, best, origin) {
  const t = cell.texts,
    number = t.reproduced;
  if (!number && !t.published) return h('span', { class: 'quiet' }, '–');
  const lines = [
    h(
      'span',
      { class: !row.change && Number(number) === best ? 'value best' : 'value' },
      minus(number || '–'),
      t.spread && shown.intervals ? ` ± ${t.spread}` : '',
    ),
  ];
  if (shown.intervals && t.low) lines.push(h('span', { class: 'under' }, minus(`[${t.low}, ${t.high}]`)));
  if (shown.published && t.published) lines.push(h('span', { class: 'under' }, `paper ${minus(t.published)}`));
  if (shown.blind && t.blind) lines.push(h('span', { class: 'under' }, `blind ${minus(t.blind)}`));
  return h(
    'button',
    {
      type: 'button',
      class: 'number',
      'aria-label': `${row.model} ${row.run}, ${table.columns[column]}: ${number || 'none'}. Where it comes from`,
      onclick: () =>
        openDialog(
          `${row.model} / ${row.run}: ${table.columns[column]}`,
          facts([
            ...Object.entries(t).map(([name, text]) => [name.replaceAll('_', ' '), minus(text)]),
            ['verdict', cell.outcome && badge(cell.outcome)],
          ]),
          row.change ? h('p', {}, 'The difference of the two rows above, of the numbers as they are shown.') : null,
          (cell.sources || []).map((file) => provenance(file, origin)),
        ),
    },
    lines,
  );
}

function provenance(file, origin) {
  const s = origin?.scores?.[file];
  return h(
    'section',
    { class: 'provenance' },
    h('h4', {}, file),
    s
      ? facts([
          ['checkpoint', s.checkpoint],
          ['benchmark', s.benchmark],
          ['questions', s.questions.toLocaleString('en')],
          ['weights', hash(s.weights)],
          ['recipe', hash(s.recipe)],
          ['samples', hash(s.samples)],
          ['judge', s.judge],
          ['time', s.hours !== undefined ? duration(s.hours) : ''],
        ])
      : h('p', {}, 'It is no longer there.'),
  );
}

const hash = (text) => h('code', { class: 'hash', title: text }, text);
const duration = (hours) =>
  hours >= 1 ? `${hours.toFixed(1)} h` : hours >= 1 / 60 ? `${(hours * 60).toFixed(1)} min` : `${Math.round(hours * 3600)} s`;

const ROWS = 40;

// a CSV as it was written; long ones can be searched, and are shown in part until they are asked for
function sheetTable(sheet, folded) {
  const right = new Set(sheet.numbers || []),
    place = h('div', {}),
    state = { text: '', limit: ROWS };
  const cell = (text, i) =>
    right.has(i)
      ? h('td', {}, minus(text.length > 8 ? short(Number(text)) : text))
      : h('td', { class: text.length > 24 ? 'left wide' : 'left' }, text);
  const draw = () => {
    const rows = sheet.rows.filter((row) => !state.text || row.some((text) => text.toLowerCase().includes(state.text)));
    const head = sheet.columns.map((c, i) =>
      h('th', { scope: 'col', class: right.has(i) ? 'right' : '' }, c.replaceAll('_', ' ')),
    );
    const body = rows.slice(0, state.limit).map((row) => h('tr', {}, row.map(cell)));
    const all = () => {
      state.limit = Infinity;
      draw();
    };
    show(
      place,
      frame(sheet.title, h('table', { class: 'numbers sheet' }, h('thead', {}, h('tr', {}, head)), h('tbody', {}, body))),
      rows.length > state.limit
        ? h('button', { type: 'button', class: 'more', onclick: all }, `Show all ${rows.length} rows`)
        : null,
    );
  };
  const search = h('input', {
    type: 'search',
    placeholder: `search ${sheet.rows.length} rows`,
    'aria-label': `Search in: ${sheet.title}`,
    autocomplete: 'off',
    oninput: () => {
      state.text = search.value.toLowerCase();
      draw();
    },
  });
  draw();
  const notes = (sheet.notes || []).length
    ? h(
        'details',
        { class: 'notes' },
        h('summary', {}, `Notes (${sheet.notes.length})`),
        sheet.notes.map((n) => h('p', {}, minus(n))),
      )
    : null;
  const content = [sheet.rows.length > 12 ? h('div', { class: 'search' }, search) : null, place, notes];
  if (folded) return h('details', {}, h('summary', {}, `${sheet.title} (${plural(sheet.rows.length, 'row')})`), content);
  return h('article', { class: 'table-block' }, h('h3', {}, sheet.title), content);
}
