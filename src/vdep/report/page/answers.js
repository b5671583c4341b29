// The answers of two checkpoints, side by side.

const STEP = 24;

function answersBrowser(answers) {
  const { checkpoints, benchmarks, pictures } = answers;
  const partners = new Map();
  for (const benchmark of benchmarks)
    for (const p of benchmark.pairs || []) {
      partners.set(`${p.left},${p.right}`, [p.left, p.right]);
    }
  const all = [...partners.values()];
  const variant = (i) => checkpoints[i].split('/')[1];
  const model = (i) => checkpoints[i].split('/')[0];
  const first = (m) =>
    all.find(([l, r]) => model(l) === m && variant(l) === 'baseline' && variant(r) === 'vdep') ||
    all.find(([l]) => model(l) === m);
  const models = unique(checkpoints.map((c) => c.split('/')[0])).filter(first);
  if (!models.length)
    return [
      h(
        'p',
        { class: 'missing' },
        'Only one checkpoint of each model has been evaluated: there are no two to lay side by side.',
      ),
    ];
  const state = {
    model: models[0],
    left: first(models[0])[0],
    right: first(models[0])[1],
    benchmark: '',
    category: '',
    kind: 'disagree',
    text: '',
    limit: STEP,
  };
  const controls = h('div', { class: 'controls' }),
    overview = h('div', {}),
    cards = h('div', { class: 'answers' }),
    count = h('p', { class: 'count', 'aria-live': 'polite', id: 'answers-count' });
  const search = h('input', {
    type: 'search',
    id: 'answers-search',
    placeholder: 'question or answer',
    autocomplete: 'off',
    oninput: () => {
      state.text = search.value.toLowerCase();
      list();
    },
  });
  const name = (i) => checkpoints[i].split('/').slice(1).join(', ').replace('seed-', 'seed ');
  const swapped = () => !partners.has(`${state.left},${state.right}`);

  function drawControls() {
    const paired = all.filter(([l]) => model(l) === state.model);
    const lefts = unique(paired.flat()).sort((a, b) => a - b);
    const rights = unique(paired.filter((p) => p.includes(state.left)).flat()).filter((i) => i !== state.left);
    if (!rights.includes(state.right)) state.right = rights.find((i) => variant(i) === 'vdep') ?? rights[0];
    const within = benchmarks.filter((b) =>
      (b.pairs || []).some((p) => [p.left, p.right].includes(state.left) && [p.left, p.right].includes(state.right)),
    );
    const chosen = benchmarks.find((b) => b.name === state.benchmark);
    show(
      controls,
      models.length > 1
        ? chooser(
            'model',
            models,
            state.model,
            (m) => {
              state.model = m;
              [state.left, state.right] = first(m);
              restart();
            },
            { 'data-control': 'model' },
          )
        : null,
      chooser(
        'left',
        lefts.map((i) => ({ value: String(i), label: name(i) })),
        String(state.left),
        (v) => {
          state.left = Number(v);
          restart();
        },
        { 'data-control': 'left' },
      ),
      chooser(
        'right',
        rights.map((i) => ({ value: String(i), label: name(i) })),
        String(state.right),
        (v) => {
          state.right = Number(v);
          restart();
        },
        { 'data-control': 'right' },
      ),
      benchmarks.length > 1
        ? chooser(
            'benchmark',
            [{ value: '', label: 'all benchmarks' }, ...within.map((b) => ({ value: b.name, label: b.label }))],
            state.benchmark,
            (v) => {
              state.benchmark = v;
              state.category = '';
              restart();
            },
            { 'data-control': 'benchmark' },
          )
        : null,
      chooser(
        'category',
        [
          { value: '', label: 'all categories' },
          ...(chosen ? [chosen] : within)
            .flatMap((b) => b.categories)
            .filter((c, i, list) => list.indexOf(c) === i)
            .sort()
            .map((c) => ({ value: c, label: c })),
        ],
        state.category,
        (v) => {
          state.category = v;
          restart();
        },
        { 'data-control': 'category' },
      ),
      segments('show', KINDS, state.kind, (v) => {
        state.kind = v;
        list();
      }),
      h('div', { class: 'control grow' }, h('label', { htmlFor: 'answers-search' }, 'words in it'), search),
    );
  }

  // [both right, gained, lost, neither] of all questions, also of those that are not shown
  function counted(benchmark) {
    const pair = (benchmark.pairs || []).find(
      (p) => [p.left, p.right].includes(state.left) && [p.left, p.right].includes(state.right),
    );
    if (!pair) return null;
    const rows = pair.counts.filter((_, i) => !state.category || benchmark.categories[i] === state.category);
    const [both, gained, lost, neither] = range(4).map((k) => sum(rows.map((row) => row[k])));
    return swapped() ? [both, lost, gained, neither] : [both, gained, lost, neither];
  }

  function drawOverview() {
    const rows = benchmarks.map((b) => [b, counted(b)]).filter(([, c]) => c && sum(c));
    const reach = Math.max(1, ...rows.flatMap(([, c]) => [c[1], c[2]]));
    const total = range(4).map((k) => sum(rows.map(([, c]) => c[k])));
    const line = (label, c, benchmark) =>
      h(
        'tr',
        { class: [benchmark ? '' : 'primary', benchmark && benchmark.name === state.benchmark ? 'chosen' : ''].join(' ') },
        h(
          'th',
          { scope: 'row' },
          benchmark && benchmarks.length > 1
            ? h(
                'button',
                {
                  type: 'button',
                  class: 'link',
                  onclick: () => {
                    state.benchmark = state.benchmark === benchmark.name ? '' : benchmark.name;
                    state.category = '';
                    restart();
                  },
                },
                label,
              )
            : label,
        ),
        h('td', {}, sum(c).toLocaleString('en')),
        h('td', {}, c[0].toLocaleString('en')),
        h('td', { class: 'lost' }, c[2].toLocaleString('en')),
        h('td', { class: 'bar' }, gainBar(c[1], c[2], benchmark ? reach : Math.max(c[1], c[2]))),
        h('td', { class: 'gained' }, c[1].toLocaleString('en')),
        h('td', {}, c[3].toLocaleString('en')),
      );
    show(
      overview,
      h(
        'details',
        { class: 'overview', open: overview.firstChild ? overview.firstChild.open : true },
        h('summary', {}, 'All questions, counted'),
        frame(
          'Questions gained and lost',
          h(
            'table',
            { class: 'numbers' },
            h(
              'thead',
              {},
              h(
                'tr',
                {},
                ['benchmark', 'questions', 'both right', 'lost', '', 'gained', 'both wrong'].map((t, i) =>
                  h('th', { scope: 'col', class: i ? 'right' : '' }, t),
                ),
              ),
            ),
            h(
              'tbody',
              {},
              rows.map(([b, c]) => line(b.label, c, b)),
              rows.length > 1 ? line('all', total) : null,
            ),
          ),
        ),
        h(
          'p',
          { class: 'note' },
          `From ${name(state.left)} to ${name(state.right)}. Gained: the second scores more; both right: both score the same, and more than nothing. Counts of one seed contain its training noise.`,
        ),
      ),
    );
  }

  function matching() {
    const test = KINDS.find((k) => k.value === state.kind).test,
      found = [];
    for (const b of benchmarks) {
      if (state.benchmark && b.name !== state.benchmark) continue;
      for (const q of b.questions) {
        if (q.a[state.left] < 0 || q.a[state.right] < 0) continue;
        if (state.category && b.categories[q.c] !== state.category) continue;
        if (!test(q.s[state.left], q.s[state.right], q, state.left, state.right)) continue;
        if (
          state.text &&
          ![q.q, q.t, q.id, q.w[q.a[state.left]], q.w[q.a[state.right]], ...(q.o || [])].some((t) =>
            t.toLowerCase().includes(state.text),
          )
        )
          continue;
        found.push([b, q]);
      }
    }
    return found;
  }

  function list() {
    const found = matching();
    const chosen = benchmarks.filter((b) => !state.benchmark || b.name === state.benchmark);
    const partly = chosen.filter((b) => b.questions.length < b.asked || b.page);
    show(
      count,
      h('strong', {}, plural(found.length, 'question')),
      partly.length
        ? [
            ` of the ${sum(chosen.map((b) => b.questions.length)).toLocaleString('en')} that are on this page; there are ${sum(chosen.map((b) => b.asked)).toLocaleString('en')}. `,
            partly.some((b) => b.page)
              ? [
                  'All of ',
                  partly.filter((b) => b.page).map((b, i) => [i ? ', ' : '', h('a', { href: b.page }, b.label)]),
                  ': pages of their own, beside this one.',
                ]
              : null,
          ]
        : null,
    );
    show(
      cards,
      found.slice(0, state.limit).map(([b, q]) => card(b, q)),
      found.length > state.limit
        ? h(
            'button',
            {
              type: 'button',
              class: 'more',
              onclick: () => {
                state.limit += STEP;
                list();
              },
            },
            `Show more (${(found.length - state.limit).toLocaleString('en')} left)`,
          )
        : null,
    );
  }

  function answerLine(q, i) {
    const points = q.s[i],
      right = points >= 0.5;
    return h(
      'p',
      { class: `answer ${right ? 'right' : 'wrong'}` },
      h('span', { class: 'mark', 'aria-label': right ? 'right' : 'wrong' }, right ? '✓' : '✗'),
      h('span', { class: 'who' }, name(i)),
      ' ',
      h('span', { class: 'said' }, q.w[q.a[i]] || '(nothing)'),
      points > 0 && points < 1 ? h('span', { class: 'points' }, ` ${fixed(points)}`) : null,
    );
  }

  const picture = (q) =>
    (q.p || []).length
      ? h('img', { src: pictures[q.p[0]], alt: '', loading: 'lazy', class: 'picture' })
      : h('span', { class: 'picture none' }, 'picture not on this page');

  function card(b, q) {
    return h(
      'article',
      { class: 'card question' },
      h(
        'button',
        {
          type: 'button',
          class: 'zoom',
          'aria-label': `All about question ${q.id} of ${b.label}`,
          onclick: () => details(b, q),
        },
        picture(q),
      ),
      h(
        'div',
        { class: 'words' },
        h('h4', {}, q.q),
        (q.o || []).length
          ? h(
              'ol',
              { class: 'options', type: 'A' },
              q.o.map((o) => h('li', {}, o)),
            )
          : null,
        h('p', { class: 'target' }, h('span', { class: 'who' }, 'right is'), ' ', q.t),
        answerLine(q, state.left),
        answerLine(q, state.right),
        h('p', { class: 'meta' }, `${b.label} · ${b.categories[q.c]} · ${q.id}`),
      ),
    );
  }

  function details(b, q) {
    openDialog(
      `${b.label} · ${q.id}`,
      h(
        'div',
        { class: 'large' },
        (q.p || []).length
          ? q.p.map((p) => h('img', { src: pictures[p], alt: '' }))
          : h('span', { class: 'picture none' }, 'picture not on this page'),
      ),
      h('p', { class: 'asked' }, q.q),
      (q.o || []).length
        ? h(
            'ol',
            { class: 'options', type: 'A' },
            q.o.map((o) => h('li', {}, o)),
          )
        : null,
      facts([
        ['right is', q.t],
        ['also counts', (q.r || []).join(', ')],
        ['category', b.categories[q.c]],
      ]),
      h('h4', {}, 'Every checkpoint'),
      h(
        'div',
        { class: 'everyone' },
        range(checkpoints.length)
          .filter((i) => q.a[i] >= 0)
          .map((i) =>
            h(
              'p',
              { class: `answer ${q.s[i] >= 0.5 ? 'right' : 'wrong'}` },
              h('span', { class: 'mark', 'aria-label': q.s[i] >= 0.5 ? 'right' : 'wrong' }, q.s[i] >= 0.5 ? '✓' : '✗'),
              h('span', { class: 'who' }, checkpoints[i]),
              ' ',
              h('span', { class: 'said' }, q.w[q.a[i]] || '(nothing)'),
              q.s[i] > 0 && q.s[i] < 1 ? h('span', { class: 'points' }, ` ${fixed(q.s[i])}`) : null,
            ),
          ),
      ),
    );
  }

  function restart() {
    state.limit = STEP;
    drawControls();
    drawOverview();
    list();
  }
  restart();
  return [controls, overview, count, cards];
}
