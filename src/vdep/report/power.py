"""Power before the money: the smallest effect that some seeds can detect, on each benchmark and pooled.

A paired difference of two arms varies from seed to seed for two reasons: single questions turn out otherwise by chance (a
share of them, ``disagreement``; the more questions, the less it matters), and a run as a whole is better or worse
(``seed_spread``). Before any run both are assumed (config/verdicts.yaml), after several they are measured together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..study.verdicts import Assumptions


def assumed_spread(columns: int, assumed: Assumptions) -> float:
    """Standard deviation over seeds of a difference of two arms in a mean of columns (0-100), beyond single questions."""
    shared = assumed.seed_correlation
    return math.sqrt(2) * assumed.seed_spread * math.sqrt((1 - shared) / columns + shared)


def chance_of_questions(questions: Sequence[int], assumed: Assumptions) -> float:
    """What single questions contribute to that of a mean of columns with so many questions: 100 sqrt(d / N) for one."""
    return 100 * math.sqrt(assumed.disagreement * math.fsum(1 / n for n in questions)) / len(questions)
