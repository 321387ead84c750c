"""How fast a step advances, and how long it will take: both programs tell it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from practise_backends.terminal import duration

_RECENT_S = 30.0


class Pace:
    """The current pace of a step, over its last half minute; restarts with each part."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._marks = deque([(now_s(), 0.0)])

    def left(self, done: float, total: float) -> str:
        """The remaining time at that pace, as text; empty if it is unknown or nothing remains."""
        now = self._now_s()
        if done <= 0 or done < self._marks[-1][1]:
            self._marks.clear()
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[1][0] >= _RECENT_S:
            self._marks.popleft()
        began, before = self._marks[0]
        progressing = before < done < total and now > began
        return (
            f"about {duration((total - done) * (now - began) / (done - before))} left" if progressing else ""
        )
