// Elements, made from text: whatever a model wrote goes into text nodes, so none of it can become markup.

const SVG = 'http://www.w3.org/2000/svg';

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'class') element.setAttribute('class', value);
    else if (name in element && name !== 'list' && element.namespaceURI !== SVG && !name.startsWith('aria'))
      element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child === undefined || child === null || child === false || child === '') continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return element;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);
const show = (place, ...children) => {
  place.replaceChildren(...children.flat(Infinity).filter(Boolean));
  return place;
};
const range = (n) => [...Array(n).keys()];
const unique = (list) => [...new Set(list)];
const sum = (list) => list.reduce((total, value) => total + value, 0);
const plural = (n, one, many) => `${n.toLocaleString('en')} ${n === 1 ? one : many || one + 's'}`;

// a true minus sign is as wide as a plus, so that columns of differences stand in line
const minus = (text) =>
  String(text)
    .replace(/^-/, '−')
    .replace(/([[ ,])-(?=\d)/g, '$1−');
const fixed = (value, digits = 2) => minus(value.toFixed(digits).replace(/^-(0\.?0*)$/, '$1'));
const signed = (value, digits = 2) => (Number(value.toFixed(digits)) > 0 ? '+' : '') + fixed(value, digits);
const short = (value) => {
  const size = Math.abs(value);
  if (value === 0) return '0';
  if (size >= 1e5 || size < 1e-3) return minus(value.toExponential(1));
  return minus(String(Number(value.toPrecision(3))));
};

function chooser(label, options, value, changed, extra) {
  const id = `c${(chooser.made = (chooser.made || 0) + 1)}`;
  const select = h(
    'select',
    { id, onchange: () => changed(select.value), ...extra },
    options.map((o) => h('option', { value: o.value ?? o, selected: (o.value ?? o) === value }, o.label ?? o)),
  );
  select.value = value;
  return h('div', { class: 'control' }, h('label', { htmlFor: id }, label), select);
}

// one of a few, as a row of buttons
function segments(label, options, value, changed) {
  const buttons = options.map((o) =>
    h(
      'button',
      {
        type: 'button',
        class: 'segment',
        'aria-pressed': String(o.value === value),
        'data-value': o.value,
        title: o.title,
        onclick: () => {
          for (const b of buttons) b.setAttribute('aria-pressed', String(b.dataset.value === o.value));
          changed(o.value);
        },
      },
      o.label,
    ),
  );
  return h(
    'div',
    { class: 'control' },
    h('span', { class: 'label' }, label),
    h('div', { class: 'segments', role: 'group', 'aria-label': label }, buttons),
  );
}

function toggle(label, value, changed, title) {
  const button = h(
    'button',
    {
      type: 'button',
      class: 'toggle',
      'aria-pressed': String(value),
      title,
      onclick: () => {
        const now = button.getAttribute('aria-pressed') !== 'true';
        button.setAttribute('aria-pressed', String(now));
        changed(now);
      },
    },
    label,
  );
  return button;
}

// wide tables scroll in a frame of their own, which the keyboard reaches
const frame = (label, ...children) => h('div', { class: 'frame', tabIndex: 0, role: 'region', 'aria-label': label }, children);

function openDialog(title, ...children) {
  const dialog = byId('dialog');
  show(
    dialog,
    h(
      'div',
      { class: 'dialog-head' },
      h('h3', { id: 'dialog-title' }, title),
      h('button', { type: 'button', class: 'close', 'aria-label': 'Close', onclick: () => dialog.close() }, '✕'),
    ),
    h('div', { class: 'dialog-body' }, children),
  );
  dialog.onclick = (event) => {
    if (event.target === dialog) dialog.close();
  };
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

const facts = (pairs) =>
  h(
    'dl',
    { class: 'facts' },
    pairs
      .filter(([, value]) => value !== undefined && value !== '' && value !== null)
      .map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]),
  );

const OUTCOMES = {
  holds: ['good', '✓'],
  better: ['good', '▲'],
  'does not hold': ['bad', '✕'],
  worse: ['bad', '▼'],
  'cannot tell': ['open', '?'],
  undecided: ['open', '≈'],
  'no verdict': ['none', '·'],
  'not evaluated': ['none', '·'],
};
const badge = (outcome) =>
  h(
    'span',
    { class: `badge ${OUTCOMES[outcome][0]}` },
    h('span', { 'aria-hidden': 'true' }, OUTCOMES[outcome][1]),
    ' ',
    outcome,
  );
