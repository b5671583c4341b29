// Where the model looks: maps of two checkpoints and their difference, on the picture.

const SEQUENTIAL = [
  [13, 8, 35],
  [84, 15, 109],
  [155, 41, 100],
  [214, 72, 66],
  [248, 140, 9],
  [252, 231, 130],
];
const DIVERGING = [
  [11, 96, 122],
  [91, 168, 184],
  [240, 238, 230],
  [224, 150, 96],
  [166, 68, 20],
];

function shade(stops, t) {
  const at = Math.max(0, Math.min(1, t)) * (stops.length - 1),
    i = Math.min(stops.length - 2, Math.floor(at));
  return range(3).map((k) => Math.round(stops[i][k] + (stops[i + 1][k] - stops[i][k]) * (at - i)));
}

const decoded = new Map();

// bytes of a side's maps as shares of attention, once
function unpack(side, name) {
  const key = side[name];
  if (!decoded.has(key)) {
    const bytes = atob(key);
    decoded.set(
      key,
      Float32Array.from({ length: bytes.length }, (_, i) => side.peak * (bytes.charCodeAt(i) / 255) ** 2),
    );
  }
  return decoded.get(key);
}

function attentionViewer(view) {
  const [rows, columns] = view.grid,
    patches = rows * columns,
    heads = view.heads || 0,
    withHeads = view.with_heads || 0;
  const sides = view.sides.filter((s) => s.maps);
  const state = {
    picture: 0,
    layer: view.layers - 1,
    head: 0,
    left: 0,
    right: Math.min(1, sides.length - 1),
    shared: false,
    cell: null,
  };
  const images = view.pictures.map((url) => {
    const image = new Image();
    image.onload = () => draw();
    image.src = url;
    return image;
  });
  const single = () =>
    state.head > 0 && state.picture < withHeads && Boolean(sides[state.left].heads && sides[state.right].heads);
  const slice = (side, layer = state.layer) => {
    const start = single()
      ? (state.picture * view.layers + layer) * heads + state.head - 1
      : state.picture * view.layers + layer;
    return unpack(side, single() ? 'heads' : 'maps').subarray(start * patches, (start + 1) * patches);
  };
  const panels = ['left', 'right', 'difference'].map((kind) => {
    const canvas = h('canvas', { width: 336, height: 336, tabIndex: 0, role: 'img' });
    const title = h('figcaption', {}),
      legend = h('div', { class: 'legend' });
    canvas.addEventListener('pointermove', (event) => {
      const box = canvas.getBoundingClientRect();
      point(
        Math.floor(((event.clientY - box.top) / box.height) * rows),
        Math.floor(((event.clientX - box.left) / box.width) * columns),
      );
    });
    canvas.addEventListener('pointerleave', () => point(-1, -1));
    canvas.addEventListener('keydown', (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      const [r, c] =
        state.cell === null ? [0, 0] : [Math.floor(state.cell / columns) + move[0], (state.cell % columns) + move[1]];
      point(Math.max(0, Math.min(rows - 1, r)), Math.max(0, Math.min(columns - 1, c)));
    });
    return { kind, canvas, title, legend };
  });
  const readout = h('p', { class: 'readout', 'aria-live': 'polite' });
  const point = (r, c) => {
    state.cell = r < 0 || c < 0 || r >= rows || c >= columns ? null : r * columns + c;
    draw();
  };
  const layerText = h('output', {}, '');
  const curve = h('div', {});
  const headText = h(
    'p',
    { class: 'note', hidden: true },
    `Shown is the mean of all heads: single heads are here for the first ${plural(withHeads, 'picture')} and the first seed.`,
  );

  function paint(panel, values, low, high, stops, diverging) {
    const context = panel.canvas.getContext('2d'),
      W = panel.canvas.width,
      H = panel.canvas.height;
    context.clearRect(0, 0, W, H);
    context.imageSmoothingEnabled = (images[state.picture].naturalWidth || 0) > 150;
    if (images[state.picture].complete && images[state.picture].naturalWidth)
      context.drawImage(images[state.picture], 0, 0, W, H);
    values.forEach((value, i) => {
      const t = diverging ? (value / high + 1) / 2 : (value - low) / (high - low || 1);
      const [r, g, b] = shade(stops, t);
      const strength = diverging ? Math.min(0.85, Math.abs(value / high)) : 0.85 * t ** 0.8;
      context.fillStyle = `rgba(${r},${g},${b},${strength})`;
      const x = Math.floor(((i % columns) * W) / columns),
        y = Math.floor((Math.floor(i / columns) * H) / rows);
      context.fillRect(x, y, Math.ceil(W / columns), Math.ceil(H / rows));
    });
    if (state.cell !== null) {
      context.strokeStyle = '#fff';
      context.lineWidth = 2;
      context.strokeRect(
        ((state.cell % columns) * W) / columns + 1,
        (Math.floor(state.cell / columns) * H) / rows + 1,
        W / columns - 2,
        H / rows - 2,
      );
    }
    const bar = h('canvas', { width: 120, height: 8, 'aria-hidden': 'true' }),
      ink = bar.getContext('2d');
    range(120).forEach((x) => {
      ink.fillStyle = `rgb(${shade(stops, x / 119)})`;
      ink.fillRect(x, 0, 1, 8);
    });
    show(
      panel.legend,
      h('span', {}, diverging ? signed(-high * 100, 2) : '0'),
      bar,
      h('span', {}, `${diverging ? '+' : ''}${fixed(high * 100, 2)} %`),
    );
  }

  function draw() {
    const left = sides[state.left],
      right = sides[state.right];
    const a = slice(left),
      b = slice(right);
    const over = state.shared ? range(view.layers) : [state.layer];
    let high = 0,
      apart = 0;
    for (const layer of over) {
      const x = slice(left, layer),
        y = slice(right, layer);
      for (let i = 0; i < patches; i++) {
        high = Math.max(high, x[i], y[i]);
        apart = Math.max(apart, Math.abs(y[i] - x[i]));
      }
    }
    const difference = Array.from(b, (value, i) => value - a[i]);
    paint(panels[0], a, 0, high || 1, SEQUENTIAL);
    paint(panels[1], b, 0, high || 1, SEQUENTIAL);
    paint(panels[2], difference, 0, apart || 1, DIVERGING, true);
    const names = [left.checkpoint, right.checkpoint, `${right.checkpoint.split('/')[1]} − ${left.checkpoint.split('/')[1]}`];
    panels.forEach((panel, i) => {
      const total = i < 2 ? sum(Array.from(i ? b : a)) : sum(difference);
      show(
        panel.title,
        h('strong', {}, names[i]),
        h('span', {}, i < 2 ? `${fixed(total * 100, 1)} % on the picture` : `${signed(total * 100, 1)} points in all`),
      );
      panel.canvas.setAttribute(
        'aria-label',
        `Attention of ${names[i]} to picture ${state.picture + 1}, layer ${state.layer + 1}`,
      );
    });
    headText.hidden = state.head === 0 || single();
    layerText.textContent = `${state.layer + 1} of ${view.layers}`;
    show(
      readout,
      state.cell === null
        ? 'Point at a patch, or move over it with the arrow keys, to read its numbers.'
        : `row ${Math.floor(state.cell / columns) + 1}, column ${(state.cell % columns) + 1}: ${fixed(a[state.cell] * 100, 3)} % and ${fixed(b[state.cell] * 100, 3)} %, difference ${signed(difference[state.cell] * 100, 3)}`,
    );
  }

  const names = sides.map((s, i) => ({ value: String(i), label: s.checkpoint }));
  const slider = h('input', {
    type: 'range',
    min: 1,
    max: view.layers,
    value: view.layers,
    id: `layer-${view.name}`,
    oninput: () => {
      state.layer = Number(slider.value) - 1;
      draw();
    },
  });
  slider.value = view.layers;
  const thumbs = view.pictures.map((url, i) =>
    h(
      'button',
      {
        type: 'button',
        class: 'thumb',
        'aria-pressed': String(i === 0),
        'aria-label': `Picture ${i + 1}`,
        onclick: () => {
          state.picture = i;
          thumbs.forEach((t, j) => t.setAttribute('aria-pressed', String(i === j)));
          draw();
        },
      },
      h('img', { src: url, alt: '' }),
    ),
  );
  show(
    curve,
    lineChart({
      title: `Share of attention on the whole picture, mean of ${plural(view.counted, 'picture')}`,
      xLabel: 'layer',
      whole: true,
      xFormat: (v) => String(Math.round(v)),
      reference: view.uniform ? { name: 'all positions alike', value: view.uniform } : undefined,
      series: view.sides.map((s) => ({
        name: s.checkpoint,
        color: colorOf(s.checkpoint.split('/')[1]),
        x: range(view.layers).map((i) => i + 1),
        y: s.totals,
        low: s.low,
        high: s.high,
        dots: true,
      })),
    }),
    legendOf(view.sides.map((s) => s.checkpoint.split('/')[1])),
  );
  draw();
  return h(
    'article',
    { class: 'attention' },
    h(
      'p',
      { class: 'note' },
      'What the words of ',
      h('q', {}, view.question),
      ' attend to. ',
      view.sides.length < 3 && !view.notes
        ? 'Two checkpoints, no training noise: a difference here is no evidence of an effect.'
        : '',
    ),
    (view.notes || []).map((text) => h('p', { class: 'note' }, minus(text))),
    h(
      'div',
      { class: 'controls' },
      h('div', { class: 'control' }, h('span', { class: 'label' }, 'picture'), h('div', { class: 'thumbs' }, thumbs)),
      h('div', { class: 'control' }, h('label', { htmlFor: slider.id }, 'layer ', layerText), slider),
      withHeads
        ? chooser(
            'head',
            ['mean of all', ...range(heads).map((i) => `head ${i + 1}`)].map((label, i) => ({ value: String(i), label })),
            '0',
            (v) => {
              state.head = Number(v);
              draw();
            },
            { 'data-control': 'head' },
          )
        : null,
      chooser(
        'left',
        names,
        String(state.left),
        (v) => {
          state.left = Number(v);
          draw();
        },
        { 'data-control': 'left' },
      ),
      chooser(
        'right',
        names,
        String(state.right),
        (v) => {
          state.right = Number(v);
          draw();
        },
        { 'data-control': 'right' },
      ),
      h(
        'div',
        { class: 'control' },
        h('span', { class: 'label' }, 'colours'),
        toggle('one scale for all layers', false, (on) => {
          state.shared = on;
          draw();
        }),
      ),
    ),
    h(
      'div',
      { class: 'panels' },
      panels.map((p) => h('figure', { class: `panel ${p.kind}` }, p.title, p.canvas, p.legend)),
    ),
    headText,
    readout,
    h('div', { class: 'plots one' }, curve),
    view.numbers ? sheetTable(view.numbers, true) : null,
  );
}
