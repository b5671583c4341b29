// How the runs went.

const QUANTITIES = {
  text_loss: ['text loss', false],
  image_loss: ['image loss', true],
  gradient_ratio: ['gradient of the image loss : of the text loss', true],
  projector_norm: ['mean length of image tokens', false],
  projector_cosine: ['mean cosine between image tokens', false],
  gradient_norm: ['norm of the gradient', true],
};

function losses(curves) {
  const models = unique(curves.map((c) => c.model));
  const state = { model: models[0], x: 'share' };
  const place = h('div', {});
  const draw = () => {
    const mine = curves.filter((c) => c.model === state.model);
    const charts = ['pretrain', 'finetune'].map((stage) => [
      stage,
      Object.keys(QUANTITIES)
        .map((quantity) => {
          const found = mine.filter((c) => c.stage === stage && c.quantity === quantity);
          if (!found.length || (stage === 'finetune' && quantity !== 'text_loss')) return null;
          const [label, log] = QUANTITIES[quantity];
          return lineChart({
            title: label,
            log: log && found.every((c) => c.y.every((y) => y > 0)),
            xLabel: state.x === 'share' ? 'part of the schedule' : 'optimizer steps',
            xFormat: state.x === 'share' ? (v) => `${Math.round(v * 100)} %` : (v) => Math.round(v).toLocaleString('en'),
            series: found.map((c) => ({
              name: `${c.variant}${c.validation ? ', validation' : ''}, ${c.seed}`,
              color: colorOf(c.variant),
              dash: c.validation ? '4 3' : null,
              dots: c.validation,
              y: c.y,
              x: c.x.map((x) => (state.x === 'share' ? x / c.steps : x)),
            })),
          });
        })
        .filter(Boolean),
    ]);
    show(
      place,
      charts
        .filter(([, list]) => list.length)
        .map(([stage, list]) => [h('h3', {}, stage === 'pretrain' ? 'Stage 1' : 'SFT'), h('div', { class: 'plots' }, list)]),
      legendOf(mine.map((c) => c.variant)),
      mine.some((c) => c.validation)
        ? h('p', { class: 'note' }, 'Dashed with dots: on validation data. Lines are means over the steps between two points.')
        : null,
    );
  };
  draw();
  return [
    h(
      'p',
      { class: 'note' },
      'A hybrid schedule takes more optimizer steps over the same data: at the same part of the schedule every run has seen the same share of its captions.',
    ),
    h(
      'div',
      { class: 'controls' },
      models.length > 1
        ? chooser('model', models, state.model, (m) => {
            state.model = m;
            draw();
          })
        : null,
      segments(
        'against',
        [
          { value: 'share', label: 'part of the schedule' },
          { value: 'step', label: 'steps' },
        ],
        'share',
        (v) => {
          state.x = v;
          draw();
        },
      ),
    ),
    place,
  ];
}
