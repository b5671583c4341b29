// Does it help: verdicts by rules, differences benchmark by benchmark, and what can be counted without either.

function verdictCards(claims, evidence) {
  const judged = claims.filter((c) => c.verdict !== 'not evaluated'),
    open = claims.filter((c) => c.verdict === 'not evaluated');
  const paper = (c) => !c.source.startsWith('not in the paper');
  const groups = [
    ['What the paper claims', judged.filter(paper)],
    ['Is it the image loss?', judged.filter((c) => !paper(c))],
  ];
  return [
    groups
      .filter(([, list]) => list.length)
      .map(([title, list]) => [
        h('h3', {}, title),
        h(
          'div',
          { class: 'cards' },
          unique(list.map((c) => c.claim)).map((claim) => claimCard(list.filter((c) => c.claim === claim))),
        ),
      ]),
    open.length
      ? h(
          'details',
          {},
          h('summary', {}, `Not evaluated (${open.length})`),
          h(
            'ul',
            { class: 'plain' },
            open.map((c) => h('li', {}, c.claim, ' ', h('span', { class: 'quiet' }, `${c.model}: ${c.reason}`))),
          ),
        )
      : null,
    evidence
      ? h(
          'p',
          { class: 'note' },
          `Rules written before the runs: level ${evidence.level}`,
          evidence.margin ? `, effects below ${evidence.margin} of 100 points count as none` : '',
          evidence.minimum_seeds ? `, no verdict from fewer than ${evidence.minimum_seeds} seeds` : '',
          '. SHA-256 of the rules ',
          hash(evidence.rules.slice(0, 16)),
          '.',
        )
      : null,
  ];
}

// a claim, with a verdict for each model
function claimCard(models) {
  const reach =
    Math.max(...models.flatMap((c) => [c.estimate ?? 0, c.low ?? 0, c.high ?? 0, c.margin ?? 0].map(Math.abs))) || 1;
  const verdicts = unique(models.map((c) => c.verdict));
  return h(
    'article',
    { class: `card verdict ${verdicts.length === 1 ? OUTCOMES[verdicts[0]][0] : 'none'}` },
    h('h4', {}, models[0].claim),
    models.map((c) =>
      h(
        'div',
        { class: 'judged' },
        h('p', { class: 'head' }, badge(c.verdict), h('span', { class: 'quiet' }, c.model)),
        c.estimate !== undefined
          ? h(
              'div',
              { class: 'estimate' },
              h('p', {}, h('strong', {}, signed(c.estimate)), h('span', {}, ` [${signed(c.low)}, ${signed(c.high)}]`)),
              intervalBar({ ...c, difference: c.estimate, outcome: c.verdict, scale: 1 }, reach, c.margin),
            )
          : null,
        h('p', { class: 'reason' }, sentence(c.reason)),
      ),
    ),
    h(
      'details',
      {},
      h('summary', {}, 'On what'),
      models.map((c) =>
        facts([
          ['model', c.model],
          ['decided on', c.on],
          ['seeds', c.seeds],
          ['margin', c.margin !== undefined ? fixed(c.margin) : ''],
          ...Object.entries(c.others || {}),
          ['who says so', c.source],
        ]),
      ),
    ),
  );
}

const sentence = (text) => minus(text.charAt(0).toUpperCase() + text.slice(1)) + (/[.!?]$/.test(text) ? '' : '.');

// what a table's intervals are of: each line may have another number of seeds
function overSeeds(numbers) {
  const several = unique(numbers.filter((n) => n > 1)).sort((a, b) => a - b),
    one = numbers.includes(1);
  const range = several.length > 1 ? `${several[0]} to ${several[several.length - 1]}` : several[0];
  return [
    several.length ? `Over ${range} seeds: t intervals; p is adjusted over the benchmarks (Holm). ` : '',
    one
      ? 'One seed: two checkpoints, no training noise. The interval is over clusters of questions, and no verdict follows from it.'
      : '',
  ].join('');
}

function differencesTable(rows, evidence) {
  const interval = Number((100 * (1 - (evidence?.level ?? 0.05))).toFixed(2));
  const arms = unique(rows.map((d) => [d.model, d.left, d.right].join('\n')));
  const place = h('div', {});
  const draw = (key) => {
    const shown = rows
      .filter((d) => [d.model, d.left, d.right].join('\n') === key)
      .sort((a, b) => Boolean(b.pooled) - Boolean(a.pooled));
    const reach =
      Math.max(...shown.flatMap((d) => [d.difference, d.low, d.high].map((v) => Math.abs(v * (d.scale ?? 1))))) || 1;
    const [model, left, right] = key.split('\n');
    show(
      place,
      frame(
        `Differences of ${right} and ${left}`,
        h(
          'table',
          { class: 'numbers' },
          h(
            'thead',
            {},
            h(
              'tr',
              {},
              [
                'on',
                'seeds',
                'questions',
                left,
                right,
                'difference',
                `${interval}% interval`,
                '',
                'gained',
                'lost',
                'p, adjusted',
                'paper',
                '',
              ].map((name, i) => h('th', { scope: 'col', class: i ? 'right' : '' }, name)),
            ),
          ),
          h(
            'tbody',
            {},
            shown.map((d, i) =>
              h(
                'tr',
                { class: [d.pooled ? 'primary' : '', i && shown[i - 1].pooled && !d.pooled ? 'first' : ''].join(' ') },
                h('th', { scope: 'row' }, d.label),
                h('td', {}, d.seeds === 1 ? '1 (over questions)' : d.seeds),
                h('td', {}, d.questions.toLocaleString('en')),
                h('td', {}, fixed(d.left_mean)),
                h('td', {}, fixed(d.right_mean)),
                h('td', { class: 'strong' }, signed(d.difference)),
                h('td', {}, `[${signed(d.low)}, ${signed(d.high)}]`),
                h('td', { class: 'bar' }, intervalBar(d, reach, evidence?.margin)),
                h('td', { class: 'gained' }, d.gained % 1 ? fixed(d.gained, 1) : d.gained.toLocaleString('en')),
                h('td', { class: 'lost' }, d.lost % 1 ? fixed(d.lost, 1) : d.lost.toLocaleString('en')),
                h('td', {}, d.p_adjusted !== undefined ? (d.p_adjusted < 0.001 ? '< 0.001' : fixed(d.p_adjusted, 3)) : '–'),
                h('td', {}, minus(d.published || '–')),
                h('td', { class: 'left' }, badge(d.outcome || 'no verdict')),
              ),
            ),
          ),
        ),
      ),
      h(
        'p',
        { class: 'note' },
        `${right} minus ${left} on the same questions. Intervals are drawn in points of 100. `,
        overSeeds(shown.map((d) => d.seeds)),
      ),
    );
  };
  draw(arms[0]);
  return [
    h('h3', {}, 'Differences, benchmark by benchmark'),
    arms.length > 1
      ? h(
          'div',
          { class: 'controls' },
          chooser(
            'compare',
            arms.map((key) => {
              const [model, left, right] = key.split('\n');
              return { value: key, label: `${model}: ${right} against ${left}` };
            }),
            arms[0],
            draw,
            { 'data-control': 'pair' },
          ),
        )
      : null,
    place,
    evidence?.missing?.length
      ? h(
          'details',
          {},
          h('summary', {}, `Not compared (${evidence.missing.length})`),
          h(
            'ul',
            { class: 'plain' },
            evidence.missing.map((m) => h('li', {}, m)),
          ),
        )
      : null,
  ];
}

// without a comparison: what can be counted
function glance(answers) {
  if (!answers) return null;
  const lines = new Map();
  for (const b of answers.benchmarks)
    for (const p of b.pairs || []) {
      const [left, right] = [answers.checkpoints[p.left], answers.checkpoints[p.right]];
      if (left.split('/')[1] !== 'baseline' || right.split('/')[1] === 'baseline') continue;
      const line = lines.get(`${left} ${right}`) || [left, right, 0, 0, 0];
      p.counts.forEach(([both, gained, lost, neither]) => {
        line[2] += gained;
        line[3] += lost;
        line[4] += both + gained + lost + neither;
      });
      lines.set(`${left} ${right}`, line);
    }
  return h(
    'ul',
    { class: 'plain' },
    [...lines.values()].map(([left, right, gained, lost, all]) =>
      h(
        'li',
        {},
        h('strong', {}, right),
        ` against ${left.split('/').slice(1).join('/')}: ${gained.toLocaleString('en')} questions gained and ${lost.toLocaleString('en')} lost, of ${all.toLocaleString('en')}.`,
      ),
    ),
  );
}
