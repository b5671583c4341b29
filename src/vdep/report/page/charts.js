// Charts as SVG: curves with a reading line, and intervals about zero.

const WIDTH = 400,
  HEIGHT = 232,
  LEFT = 44,
  RIGHT = 18,
  TOP = 10,
  BOTTOM = 34;

function ticks(low, high, wanted) {
  const span = high - low || 1;
  const raw = span / wanted,
    power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= raw);
  const first = Math.ceil(low / step - 1e-9) * step;
  return range(Math.floor((high - first) / step + 1e-9) + 1).map((i) => Number((first + i * step).toPrecision(12)));
}

function powers(low, high) {
  const all = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
    for (const f of [1, 2, 5]) all.push(f * 10 ** p);
  const inside = all.filter((v) => v >= low * 0.999 && v <= high * 1.001);
  const whole = inside.filter((v) => Math.abs(Math.log10(v) - Math.round(Math.log10(v))) < 1e-9);
  return whole.length >= 2 ? whole.filter((_, i) => i % Math.ceil(whole.length / 5) === 0) : inside.slice(0, 5);
}

// series: {name, color, dash, dots, x, y, low, high}; drawn with a line that reads all of them at one x
function lineChart({ title, series, xLabel, log = false, xFormat = short, whole = false, zero = false, reference }) {
  const drawn = series.filter((s) => s.x.length);
  const ys = drawn
    .flatMap((s) => [...s.y, ...(s.low || []), ...(s.high || [])])
    .concat(reference ? [reference.value] : [])
    .filter((v) => !log || v > 0);
  const xs = drawn.flatMap((s) => s.x);
  let [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  if (!log) {
    if (zero) y0 = Math.min(0, y0);
    const room = (y1 - y0 || Math.abs(y1) || 1) * 0.06;
    [y0, y1] = [zero && y0 === 0 ? 0 : y0 - room, y1 + room];
  } else [y0, y1] = [y0 / 1.15, y1 * 1.15];
  const scale = (v) => (log ? Math.log10(Math.max(v, y0)) : v);
  const px = (x) => LEFT + ((x - x0) / (x1 - x0)) * (WIDTH - LEFT - RIGHT);
  const py = (y) => HEIGHT - BOTTOM - ((scale(y) - scale(y0)) / (scale(y1) - scale(y0))) * (HEIGHT - TOP - BOTTOM);
  const root = svg('svg', {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    class: 'chart',
    role: 'img',
    'aria-label': `${title}: ${drawn.map((s) => s.name).join(', ')}`,
  });
  for (const value of log ? powers(y0, y1) : ticks(y0, y1, 4)) {
    root.append(
      svg('line', { class: 'grid', x1: LEFT, x2: WIDTH - RIGHT, y1: py(value), y2: py(value) }),
      svg('text', { class: 'tick', x: LEFT - 6, y: py(value) + 3.5, 'text-anchor': 'end' }, short(value)),
    );
  }
  for (const value of ticks(x0, x1, 5).filter((v) => !whole || Number.isInteger(v))) {
    root.append(svg('text', { class: 'tick', x: px(value), y: HEIGHT - BOTTOM + 15, 'text-anchor': 'middle' }, xFormat(value)));
  }
  root.append(svg('text', { class: 'axis', x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 4, 'text-anchor': 'middle' }, xLabel));
  if (reference) {
    root.append(
      svg('line', { class: 'reference', x1: LEFT, x2: WIDTH - RIGHT, y1: py(reference.value), y2: py(reference.value) }),
      svg('text', { class: 'tick', x: WIDTH - RIGHT, y: py(reference.value) - 4, 'text-anchor': 'end' }, reference.name),
    );
  }
  for (const s of drawn) {
    if (s.low) {
      const band = [...s.x.map((x, i) => [x, s.high[i]]), ...s.x.map((x, i) => [x, s.low[i]]).reverse()];
      root.append(
        svg('polygon', {
          class: `band ${s.color}`,
          points: band.map(([x, y]) => `${px(x).toFixed(1)},${py(y).toFixed(1)}`).join(' '),
        }),
      );
    }
    const points = s.x.map((x, i) => `${px(x).toFixed(1)},${py(s.y[i]).toFixed(1)}`).join(' ');
    root.append(svg('polyline', { class: `curve ${s.color}`, points, 'stroke-dasharray': s.dash || null }));
    if (s.dots)
      s.x.forEach((x, i) => root.append(svg('circle', { class: `dot ${s.color}`, cx: px(x), cy: py(s.y[i]), r: 2.4 })));
  }
  const line = svg('line', { class: 'reading', y1: TOP, y2: HEIGHT - BOTTOM, visibility: 'hidden' });
  root.append(line);
  const readout = h('p', { class: 'readout', 'aria-live': 'off' }, ' ');
  const read = (event) => {
    const box = root.getBoundingClientRect();
    const at = x0 + ((((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT)) * (x1 - x0);
    const x = Math.min(x1, Math.max(x0, at));
    line.setAttribute('x1', px(x));
    line.setAttribute('x2', px(x));
    line.setAttribute('visibility', 'visible');
    show(
      readout,
      h('span', { class: 'at' }, xFormat(x)),
      drawn.map((s) => {
        let nearest = 0;
        s.x.forEach((v, i) => {
          if (Math.abs(v - x) < Math.abs(s.x[nearest] - x)) nearest = i;
        });
        return h('span', {}, h('i', { class: `key ${s.color}` }), ` ${short(s.y[nearest])}`);
      }),
    );
  };
  root.addEventListener('pointermove', read);
  root.addEventListener('pointerleave', () => {
    line.setAttribute('visibility', 'hidden');
    show(readout, document.createTextNode(' '));
  });
  return h('figure', { class: 'plot' }, h('figcaption', {}, title), root, readout);
}

// an interval about zero, on a scale that is shared by all rows
function intervalBar(row, reach, margin) {
  const W = 220,
    H = 18,
    x = (v) => W / 2 + Math.max(-1, Math.min(1, v / reach)) * (W / 2 - 6),
    k = row.scale ?? 1;
  return svg(
    'svg',
    { viewBox: `0 0 ${W} ${H}`, class: 'interval', 'aria-hidden': 'true' },
    margin ? svg('rect', { class: 'margin', x: x(-margin), width: x(margin) - x(-margin), y: 0, height: H }) : null,
    svg('line', { class: 'zero', x1: W / 2, x2: W / 2, y1: 0, y2: H }),
    row.low !== undefined
      ? svg('line', {
          class: `span ${OUTCOMES[row.outcome || 'no verdict'][0]}`,
          x1: x(row.low * k),
          x2: x(row.high * k),
          y1: H / 2,
          y2: H / 2,
        })
      : null,
    svg('circle', { class: `point ${OUTCOMES[row.outcome || 'no verdict'][0]}`, cx: x(row.difference * k), cy: H / 2, r: 3.6 }),
  );
}

// lost to the left, gained to the right
function gainBar(gained, lost, reach) {
  const W = 160,
    H = 14,
    w = (v) => (v / (reach || 1)) * (W / 2 - 1);
  return svg(
    'svg',
    { viewBox: `0 0 ${W} ${H}`, class: 'gains', 'aria-hidden': 'true' },
    svg('rect', { class: 'lost', x: W / 2 - w(lost), width: w(lost), y: 2, height: H - 4, rx: 1.5 }),
    svg('rect', { class: 'gained', x: W / 2, width: w(gained), y: 2, height: H - 4, rx: 1.5 }),
    svg('line', { class: 'zero', x1: W / 2, x2: W / 2, y1: 0, y2: H }),
  );
}
