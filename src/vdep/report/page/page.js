// The page: its parts in order, each from the data, or with a sentence on what would fill it.

const PARTS = [
  [
    'verdicts',
    'Does it help?',
    () => [
      DATA.claims ? verdictCards(DATA.claims, DATA.evidence) : missing('claims'),
      DATA.differences ? differencesTable(DATA.differences, DATA.evidence) : [missing('differences'), glance(DATA.answers)],
    ],
  ],
  [
    'tables',
    'Tables',
    () => [
      DATA.tables
        ? [
            h('p', { class: 'note' }, 'Press a number for where it comes from.'),
            DATA.tables.map((t) => studyTable(t, DATA.origin)),
          ]
        : missing('tables'),
      (DATA.others || []).map((o) => sheetTable(o, true)),
    ],
  ],
  ['power', 'Power', () => (DATA.power ? DATA.power.map((s) => sheetTable(s)) : missing('power'))],
  ['audit', 'Audit', () => (DATA.audit ? DATA.audit.map((s) => sheetTable(s)) : missing('audit'))],
  ['losses', 'Losses', () => (DATA.curves ? losses(DATA.curves) : missing('curves'))],
  ['attention', 'Where it looks', () => (DATA.attention ? DATA.attention.map(attentionViewer) : missing('attention'))],
  ['answers', 'Answers', () => (DATA.answers ? answersBrowser(DATA.answers) : missing('answers'))],
  ['origin', 'What ran', () => (DATA.origin ? whatRan(DATA.origin) : null)],
].filter(([name]) => !DATA.home || name === 'answers');

function themeButton() {
  const order = ['auto', 'light', 'dark'];
  const button = h('button', {
    type: 'button',
    class: 'theme',
    id: 'theme',
    onclick: () => set(order[(order.indexOf(document.documentElement.dataset.theme || 'auto') + 1) % 3]),
  });
  const set = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = { auto: '◐ auto', light: '○ light', dark: '● dark' }[theme];
    button.setAttribute('aria-label', `Colours: ${theme}`);
  };
  set('auto');
  return button;
}

const questions = sum((DATA.answers?.benchmarks || []).map((b) => b.asked));
show(
  byId('top'),
  h(
    'div',
    { class: 'bar' },
    h(
      'div',
      {},
      DATA.home ? h('a', { class: 'home', href: DATA.home }, '← the whole report') : null,
      h('h1', {}, DATA.title),
      DATA.note ? h('p', { class: 'lead' }, DATA.note) : null,
      h(
        'p',
        { class: 'meta' },
        [
          DATA.answers ? plural(DATA.answers.checkpoints.length, 'checkpoint') : '',
          questions ? plural(questions, 'question') : '',
          DATA.origin?.commit ? `commit ${DATA.origin.commit.slice(0, 10)}` : '',
        ]
          .filter(Boolean)
          .join(' · '),
      ),
    ),
    themeButton(),
  ),
);
show(
  byId('nav'),
  h(
    'ul',
    {},
    PARTS.map(([name, label]) => h('li', {}, h('a', { href: `#${name}` }, label))),
  ),
);
show(
  byId('main'),
  PARTS.map(([name, label, content]) =>
    h('section', { id: name, 'aria-labelledby': `${name}-title` }, h('h2', { id: `${name}-title` }, label), content()),
  ),
);
show(byId('foot'), h('p', {}, 'One file; it fetches nothing. Answers are shown as they were given.'));

const links = new Map([...document.querySelectorAll('#nav a')].map((a) => [a.hash.slice(1), a]));
const observer = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((e) => e.isIntersecting)) {
      links.forEach((a, id) =>
        id === entry.target.id ? a.setAttribute('aria-current', 'true') : a.removeAttribute('aria-current'),
      );
    }
  },
  { rootMargin: '-30% 0px -65% 0px' },
);
document.querySelectorAll('main > section').forEach((section) => observer.observe(section));
