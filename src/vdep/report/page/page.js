// The page: its parts in order, each from the data, or with a sentence on what would fill it.

const DATA = JSON.parse(byId('data').textContent);
const missing = (name) => h('p', { class: 'missing' }, DATA.missing?.[name] || '');

// the colour of a variant is the same in every chart
const VARIANTS = unique([...(DATA.curves || []).map((c) => c.variant), ...(DATA.attention || []).flatMap((v) => v.sides.map((s) => s.checkpoint.split('/')[1]))]);
function colorOf(variant) {
  const fixed = { baseline: 'k0', vdep: 'k1', 'vdep-alpha0': 'k2', 'baseline-2epochs': 'k3' };
  if (fixed[variant]) return fixed[variant];
  const others = VARIANTS.filter((v) => !fixed[v]);
  return `k${4 + others.indexOf(variant) % 5}`;
}
const legendOf = (variants) => h('p', { class: 'keys' }, unique(variants).map((v) => h('span', {}, h('i', { class: `key ${colorOf(v)}` }), ` ${v}`)));

const QUANTITIES = {
  text_loss: ['text loss', false], image_loss: ['image loss', true], gradient_ratio: ['gradient of the image loss : of the text loss', true],
  projector_norm: ['mean length of image tokens', false], projector_cosine: ['mean cosine between image tokens', false], gradient_norm: ['norm of the gradient', true],
};

function losses(curves) {
  const models = unique(curves.map((c) => c.model));
  const state = { model: models[0], x: 'share' };
  const place = h('div', {});
  const draw = () => {
    const mine = curves.filter((c) => c.model === state.model);
    const charts = ['pretrain', 'finetune'].map((stage) => [stage, Object.keys(QUANTITIES).map((quantity) => {
      const found = mine.filter((c) => c.stage === stage && c.quantity === quantity);
      if (!found.length || (stage === 'finetune' && quantity !== 'text_loss')) return null;
      const [label, log] = QUANTITIES[quantity];
      return lineChart({ title: label, log: log && found.every((c) => c.y.every((y) => y > 0)), xLabel: state.x === 'share' ? 'part of the schedule' : 'optimizer steps',
        xFormat: state.x === 'share' ? (v) => `${Math.round(v * 100)} %` : (v) => Math.round(v).toLocaleString('en'),
        series: found.map((c) => ({ name: `${c.variant}${c.validation ? ', validation' : ''}, ${c.seed}`, color: colorOf(c.variant), dash: c.validation ? '4 3' : null, dots: c.validation, y: c.y, x: c.x.map((x) => (state.x === 'share' ? x / c.steps : x)) })) });
    }).filter(Boolean)]);
    show(place, charts.filter(([, list]) => list.length).map(([stage, list]) => [h('h3', {}, stage === 'pretrain' ? 'Stage 1' : 'SFT'), h('div', { class: 'plots' }, list)]),
      legendOf(mine.map((c) => c.variant)), mine.some((c) => c.validation) ? h('p', { class: 'note' }, 'Dashed with dots: on validation data. Lines are means over the steps between two points.') : null);
  };
  draw();
  return [h('p', { class: 'note' }, 'A hybrid schedule takes more optimizer steps over the same data: at the same part of the schedule every run has seen the same share of its captions.'),
    h('div', { class: 'controls' }, models.length > 1 ? chooser('model', models, state.model, (m) => { state.model = m; draw(); }) : null,
      segments('against', [{ value: 'share', label: 'part of the schedule' }, { value: 'step', label: 'steps' }], 'share', (v) => { state.x = v; draw(); })), place];
}

function whatRan(origin) {
  const hours = sum((origin.trained || []).map((t) => t.hours || 0)), evaluating = sum(Object.values(origin.scores || {}).map((s) => s.hours || 0));
  const parts = [facts([
    ['commit', origin.commit ? hash(origin.commit) : 'not in git'],
    ['training', hours ? `${duration(hours)} for ${plural(origin.trained.length, 'stage')}` : ''],
    ['evaluation', evaluating ? `${duration(evaluating)} for ${plural(Object.keys(origin.scores).length, 'evaluation')}` : ''],
    ['versions', Object.entries(origin.versions || {}).map(([name, v]) => `${name} ${v}`).join(', ')]])];
  if (origin.left_out) {
    parts.push(h('div', { class: 'missing' }, h('p', {}, 'Left out, because another configuration made it:'), h('ul', { class: 'plain' }, origin.left_out.map((line) => h('li', {}, line)))));
  }
  if ((origin.trained || []).length) {
    parts.push(h('h3', {}, 'Trainings'), frame('Trainings', h('table', { class: 'numbers' },
      h('thead', {}, h('tr', {}, ['checkpoint', 'stage', 'steps', 'time', 'hardware', 'recipe', 'weights', ''].map((t, i) => h('th', { scope: 'col', class: [2, 3].includes(i) ? 'right' : '' }, t)))),
      h('tbody', {}, origin.trained.map((t) => h('tr', {}, h('th', { scope: 'row' }, t.checkpoint), h('td', { class: 'left' }, t.stage), h('td', {}, t.steps.toLocaleString('en')),
        h('td', {}, t.hours !== undefined && t.hours !== null ? duration(t.hours) : '–', t.attempts > 1 ? ` in ${t.attempts} attempts` : ''), h('td', { class: 'left' }, t.hardware || '–'), h('td', { class: 'left' }, hash(t.recipe)), h('td', { class: 'left' }, hash(t.weights)),
        h('td', {}, h('button', { type: 'button', class: 'link', onclick: () => openDialog(`${t.checkpoint}, ${t.stage}`, facts([...Object.entries(t.settings || {}).map(([k, v]) => [k.replaceAll('_', ' '), typeof v === 'object' ? JSON.stringify(v) : String(v)]), ['recipe', hash(t.recipe)], ['weights', hash(t.weights)], ...Object.entries(t.versions || {})])) }, 'settings'))))))));
  }
  if ((origin.sources || []).length) {
    parts.push(h('details', {}, h('summary', {}, `Weights and data (${origin.sources.length})`), frame('Weights and data', h('table', { class: 'numbers' },
      h('thead', {}, h('tr', {}, ['name', 'kind', 'from', 'revision'].map((t) => h('th', { scope: 'col' }, t)))),
      h('tbody', {}, origin.sources.map((s) => h('tr', {}, h('th', { scope: 'row' }, s.name), h('td', { class: 'left' }, s.kind), h('td', { class: 'left wrap' }, s.origin), h('td', { class: 'left' }, s.revision ? hash(s.revision) : '–'))))))));
  }
  const scores = Object.entries(origin.scores || {});
  if (scores.length) {
    parts.push(h('details', {}, h('summary', {}, `Evaluations (${scores.length})`), frame('Evaluations', h('table', { class: 'numbers' },
      h('thead', {}, h('tr', {}, ['checkpoint', 'benchmark', 'questions', 'time', 'recipe', 'samples', 'judge'].map((t, i) => h('th', { scope: 'col', class: [2, 3].includes(i) ? 'right' : '' }, t)))),
      h('tbody', {}, scores.map(([, s]) => h('tr', {}, h('th', { scope: 'row' }, s.checkpoint), h('td', { class: 'left' }, s.benchmark), h('td', {}, s.questions.toLocaleString('en')), h('td', {}, s.hours !== undefined && s.hours !== null ? duration(s.hours) : '–'),
        h('td', { class: 'left' }, hash(s.recipe)), h('td', { class: 'left' }, hash(s.samples)), h('td', { class: 'left' }, s.judge || '–'))))))));
  }
  return parts;
}

// without a comparison: what can be counted
function glance(answers) {
  if (!answers) return null;
  const lines = new Map();
  for (const b of answers.benchmarks) for (const p of b.pairs || []) {
    const [left, right] = [answers.checkpoints[p.left], answers.checkpoints[p.right]];
    if (left.split('/')[1] !== 'baseline' || right.split('/')[1] === 'baseline') continue;
    const line = lines.get(`${left} ${right}`) || [left, right, 0, 0, 0];
    p.counts.forEach(([both, gained, lost, neither]) => { line[2] += gained; line[3] += lost; line[4] += both + gained + lost + neither; });
    lines.set(`${left} ${right}`, line);
  }
  return h('ul', { class: 'plain' }, [...lines.values()].map(([left, right, gained, lost, all]) => h('li', {}, h('strong', {}, right), ` against ${left.split('/').slice(1).join('/')}: ${gained.toLocaleString('en')} questions gained and ${lost.toLocaleString('en')} lost, of ${all.toLocaleString('en')}.`)));
}

const PARTS = [
  ['verdicts', 'Does it help?', () => [DATA.claims ? verdictCards(DATA.claims, DATA.evidence) : missing('claims'), DATA.differences ? differencesTable(DATA.differences, DATA.evidence) : [missing('differences'), glance(DATA.answers)]]],
  ['tables', 'Tables', () => [DATA.tables ? [h('p', { class: 'note' }, 'Press a number for where it comes from.'), DATA.tables.map((t) => studyTable(t, DATA.origin))] : missing('tables'), (DATA.others || []).map((o) => sheetTable(o, true))]],
  ['power', 'Power', () => (DATA.power ? DATA.power.map((s) => sheetTable(s)) : missing('power'))],
  ['audit', 'Audit', () => (DATA.audit ? DATA.audit.map((s) => sheetTable(s)) : missing('audit'))],
  ['losses', 'Losses', () => (DATA.curves ? losses(DATA.curves) : missing('curves'))],
  ['attention', 'Where it looks', () => (DATA.attention ? DATA.attention.map(attentionViewer) : missing('attention'))],
  ['answers', 'Answers', () => (DATA.answers ? answersBrowser(DATA.answers) : missing('answers'))],
  ['origin', 'What ran', () => (DATA.origin ? whatRan(DATA.origin) : null)],
].filter(([name]) => !DATA.home || name === 'answers');

function themeButton() {
  const order = ['auto', 'light', 'dark'];
  const button = h('button', { type: 'button', class: 'theme', id: 'theme', onclick: () => set(order[(order.indexOf(document.documentElement.dataset.theme || 'auto') + 1) % 3]) });
  const set = (theme) => { document.documentElement.dataset.theme = theme; button.textContent = { auto: '◐ auto', light: '○ light', dark: '● dark' }[theme]; button.setAttribute('aria-label', `Colours: ${theme}`); };
  set('auto');
  return button;
}

const questions = sum((DATA.answers?.benchmarks || []).map((b) => b.asked));
show(byId('top'), h('div', { class: 'bar' },
  h('div', {}, DATA.home ? h('a', { class: 'home', href: DATA.home }, '← the whole report') : null, h('h1', {}, DATA.title), DATA.note ? h('p', { class: 'lead' }, DATA.note) : null,
    h('p', { class: 'meta' }, [DATA.answers ? plural(DATA.answers.checkpoints.length, 'checkpoint') : '', questions ? plural(questions, 'question') : '', DATA.origin?.commit ? `commit ${DATA.origin.commit.slice(0, 10)}` : ''].filter(Boolean).join(' · '))),
  themeButton()));
show(byId('nav'), h('ul', {}, PARTS.map(([name, label]) => h('li', {}, h('a', { href: `#${name}` }, label)))));
show(byId('main'), PARTS.map(([name, label, content]) => h('section', { id: name, 'aria-labelledby': `${name}-title` }, h('h2', { id: `${name}-title` }, label), content())));
show(byId('foot'), h('p', {}, 'One file; it fetches nothing. Answers are shown as they were given.'));

const links = new Map([...document.querySelectorAll('#nav a')].map((a) => [a.hash.slice(1), a]));
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((e) => e.isIntersecting)) {
    links.forEach((a, id) => (id === entry.target.id ? a.setAttribute('aria-current', 'true') : a.removeAttribute('aria-current')));
  }
}, { rootMargin: '-30% 0px -65% 0px' });
document.querySelectorAll('main > section').forEach((section) => observer.observe(section));
