// How two checkpoints' answers to one question compare: l and r are their points, q the question, i and j the checkpoints.

const KINDS = [
  { value: 'disagree', label: 'disagree', title: 'one of the two scores more', test: (l, r) => l !== r },
  { value: 'gained', label: 'gained', title: 'the right one scores more', test: (l, r) => r > l },
  { value: 'lost', label: 'lost', title: 'the right one scores less', test: (l, r) => r < l },
  {
    value: 'words',
    label: 'other words',
    title: 'the answers differ, whatever they score',
    test: (l, r, q, i, j) => q.a[i] !== q.a[j],
  },
  { value: 'right', label: 'both right', test: (l, r) => l === r && l > 0 },
  { value: 'wrong', label: 'both wrong', test: (l, r) => l === 0 && r === 0 },
  { value: 'all', label: 'all', test: () => true },
];
