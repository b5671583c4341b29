"""When a judge is asked what, and when it is given up: decided without asking, so that the bounds can be tested as they are.

A judge that gives no grade is asked one thing at a time, ever more slowly. It is given up when ``patience`` seconds have
passed without a grade, or at the third answer in a row that could not be graded. Time is a number that the caller passes in.
"""

from __future__ import annotations

import heapq
from collections import Counter

from ..study.execution import JudgeExecution
from .judge import Busy, NoGrade, Useless

MOST_IN_A_ROW = 3
LONGEST_PAUSE = 32.0
HIGHEST_TEMPERATURE = 1.0


class NotGraded(Exception):
    """The judge was given up before every answer had its grade."""


class Pace:
    """The state of a grading of ``count`` answers.

    Args:
        most_in_a_row: so many answers that cannot be graded, without a grade in between, end it.
    """

    def __init__(self, count: int, limits: JudgeExecution, now: float, most_in_a_row: int = MOST_IN_A_ROW) -> None:
        self._limits = limits
        self._most_in_a_row = most_in_a_row
        # a heap: what failed is asked again before anything new
        self._waiting = list(range(count))
        self._started: dict[int, float] = {}
        self._attempts = Counter[int]()
        self._never = 0
        self._pause_until = now
        self._last = "it does not answer"
        self._grade(now)

    def _grade(self, now: float) -> None:
        self._since, self._failed, self._rounds, self._in_a_row = now, 0, 0, 0

    @property
    def finished(self) -> bool:
        return not self._waiting and not self._started

    @property
    def _open(self) -> int:
        most = 1 if self._failed else self._limits.parallel
        return min(len(self._waiting), max(0, most - len(self._started)))

    @property
    def _end(self) -> float:
        return self._since + self._limits.patience

    def due(self, now: float) -> list[tuple[int, float]]:
        """(answer, temperature) of the requests to be started now.

        Raises:
            NotGraded: where it is time to give up.
        """
        if now >= self._end or (not self._started and self._pause_until > self._end):
            raise NotGraded(f"no grade within {self._limits.patience:g} seconds; the last failure: {self._last}")
        if now < self._pause_until:
            return []
        rows = [heapq.heappop(self._waiting) for _ in range(self._open)]
        self._started |= dict.fromkeys(rows, now)
        # as in lmms-eval: a judge that rambles is asked again at a higher temperature
        return [(row, min(0.5 * self._attempts[row], HIGHEST_TEMPERATURE)) for row in rows]

    def wake(self) -> float:
        """Until when an outcome may be waited for."""
        return min(self._end, self._pause_until) if self._open else self._end

    def graded(self, row: int, now: float) -> None:
        del self._started[row]
        self._grade(now)

    def failed(self, row: int, error: NoGrade | Busy | Useless, now: float) -> None:
        """Raises NotGraded where there is no use in asking on."""
        started = self._started.pop(row)
        self._last = str(error)
        if isinstance(error, Useless):
            raise NotGraded(self._last)
        self._failed += 1
        if isinstance(error, NoGrade):
            self._attempts[row] += 1
            pause = self._backoff(self._attempts[row])
        else:
            # a rate limit is no fault of the answer that meets it
            self._attempts[row] += not error.rate_limit
            # requests that were under way together fail together: one round
            self._rounds += started >= self._pause_until
            pause = max(self._backoff(self._rounds), error.wait or 0.0)
        if self._attempts[row] < self._limits.attempts:
            heapq.heappush(self._waiting, row)
        else:
            self._never += 1
            self._in_a_row += 1
            if self._in_a_row >= self._most_in_a_row:
                raise NotGraded(self._summary(self._in_a_row))
        self._pause_until = max(self._pause_until, now + pause)

    def close(self) -> None:
        """Raises NotGraded where an answer was passed over."""
        if self._never:
            raise NotGraded(self._summary(self._never))

    def _backoff(self, times: int) -> float:
        return min(self._limits.backoff * 2.0 ** max(0, times - 1), LONGEST_PAUSE)

    def _summary(self, count: int) -> str:
        answers = "an answer" if count == 1 else f"{count} answers"
        return f"{answers} could not be graded; the last failure: {self._last}"
