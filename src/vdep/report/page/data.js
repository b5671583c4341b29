// What the page shows (content.py), and what all of its parts ask about it.

const DATA = JSON.parse(byId('data').textContent);
const missing = (name) => h('p', { class: 'missing' }, DATA.missing?.[name] || '');

// the colour of a variant is the same in every chart
const VARIANTS = unique([
  ...(DATA.curves || []).map((c) => c.variant),
  ...(DATA.attention || []).flatMap((v) => v.sides.map((s) => s.checkpoint.split('/')[1])),
]);
function colorOf(variant) {
  const fixed = { baseline: 'k0', vdep: 'k1', 'vdep-alpha0': 'k2', 'baseline-2epochs': 'k3' };
  if (fixed[variant]) return fixed[variant];
  const others = VARIANTS.filter((v) => !fixed[v]);
  return `k${4 + (others.indexOf(variant) % 5)}`;
}
const legendOf = (variants) =>
  h(
    'p',
    { class: 'keys' },
    unique(variants).map((v) => h('span', {}, h('i', { class: `key ${colorOf(v)}` }), ` ${v}`)),
  );
