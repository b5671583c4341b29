// What ran, on what, for how long, and from what.

function whatRan(origin) {
  const hours = sum((origin.trained || []).map((t) => t.hours || 0)),
    evaluating = sum(Object.values(origin.scores || {}).map((s) => s.hours || 0));
  const parts = [
    facts([
      ['commit', origin.commit ? hash(origin.commit) : 'not in git'],
      ['training', hours ? `${duration(hours)} for ${plural(origin.trained.length, 'stage')}` : ''],
      [
        'evaluation',
        evaluating ? `${duration(evaluating)} for ${plural(Object.keys(origin.scores).length, 'evaluation')}` : '',
      ],
      [
        'versions',
        Object.entries(origin.versions || {})
          .map(([name, v]) => `${name} ${v}`)
          .join(', '),
      ],
    ]),
  ];
  if (origin.left_out) {
    parts.push(
      h(
        'div',
        { class: 'missing' },
        h('p', {}, 'Left out, because another configuration made it:'),
        h(
          'ul',
          { class: 'plain' },
          origin.left_out.map((line) => h('li', {}, line)),
        ),
      ),
    );
  }
  if ((origin.trained || []).length) {
    parts.push(
      h('h3', {}, 'Trainings'),
      frame(
        'Trainings',
        h(
          'table',
          { class: 'numbers' },
          h(
            'thead',
            {},
            h(
              'tr',
              {},
              ['checkpoint', 'stage', 'steps', 'time', 'hardware', 'recipe', 'weights', ''].map((t, i) =>
                h('th', { scope: 'col', class: [2, 3].includes(i) ? 'right' : '' }, t),
              ),
            ),
          ),
          h(
            'tbody',
            {},
            origin.trained.map((t) =>
              h(
                'tr',
                {},
                h('th', { scope: 'row' }, t.checkpoint),
                h('td', { class: 'left' }, t.stage),
                h('td', {}, t.steps.toLocaleString('en')),
                h(
                  'td',
                  {},
                  t.hours !== undefined && t.hours !== null ? duration(t.hours) : '–',
                  t.attempts > 1 ? ` in ${t.attempts} attempts` : '',
                ),
                h('td', { class: 'left' }, t.hardware || '–'),
                h('td', { class: 'left' }, hash(t.recipe)),
                h('td', { class: 'left' }, hash(t.weights)),
                h(
                  'td',
                  {},
                  h(
                    'button',
                    {
                      type: 'button',
                      class: 'link',
                      onclick: () =>
                        openDialog(
                          `${t.checkpoint}, ${t.stage}`,
                          facts([
                            ...Object.entries(t.settings || {}).map(([k, v]) => [
                              k.replaceAll('_', ' '),
                              typeof v === 'object' ? JSON.stringify(v) : String(v),
                            ]),
                            ['recipe', hash(t.recipe)],
                            ['weights', hash(t.weights)],
                            ...Object.entries(t.versions || {}),
                          ]),
                        ),
                    },
                    'settings',
                  ),
                ),
              ),
            ),
          ),
        ),
      ),
    );
  }
  if ((origin.sources || []).length) {
    parts.push(
      h(
        'details',
        {},
        h('summary', {}, `Weights and data (${origin.sources.length})`),
        frame(
          'Weights and data',
          h(
            'table',
            { class: 'numbers' },
            h(
              'thead',
              {},
              h(
                'tr',
                {},
                ['name', 'kind', 'from', 'revision'].map((t) => h('th', { scope: 'col' }, t)),
              ),
            ),
            h(
              'tbody',
              {},
              origin.sources.map((s) =>
                h(
                  'tr',
                  {},
                  h('th', { scope: 'row' }, s.name),
                  h('td', { class: 'left' }, s.kind),
                  h('td', { class: 'left wrap' }, s.origin),
                  h('td', { class: 'left' }, s.revision ? hash(s.revision) : '–'),
                ),
              ),
            ),
          ),
        ),
      ),
    );
  }
  const scores = Object.entries(origin.scores || {});
  if (scores.length) {
    parts.push(
      h(
        'details',
        {},
        h('summary', {}, `Evaluations (${scores.length})`),
        frame(
          'Evaluations',
          h(
            'table',
            { class: 'numbers' },
            h(
              'thead',
              {},
              h(
                'tr',
                {},
                ['checkpoint', 'benchmark', 'questions', 'time', 'recipe', 'samples', 'judge'].map((t, i) =>
                  h('th', { scope: 'col', class: [2, 3].includes(i) ? 'right' : '' }, t),
                ),
              ),
            ),
            h(
              'tbody',
              {},
              scores.map(([, s]) =>
                h(
                  'tr',
                  {},
                  h('th', { scope: 'row' }, s.checkpoint),
                  h('td', { class: 'left' }, s.benchmark),
                  h('td', {}, s.questions.toLocaleString('en')),
                  h('td', {}, s.hours !== undefined && s.hours !== null ? duration(s.hours) : '–'),
                  h('td', { class: 'left' }, hash(s.recipe)),
                  h('td', { class: 'left' }, hash(s.samples)),
                  h('td', { class: 'left' }, s.judge || '–'),
                ),
              ),
            ),
          ),
        ),
      ),
    );
  }
  return parts;
}
