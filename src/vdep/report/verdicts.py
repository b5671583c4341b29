"""Verdicts on claims, by the rules of config/verdicts.yaml and by nothing else.

* **holds**: over seeds, the treatment is better (two-sided t test at the level, and the sign).
* **does not hold**: an effect as large as the margin would have shown (one-sided t test of the difference against the margin).
  Together with the other side that is equivalence (two one-sided tests).
* **cannot tell**: neither; with about how many seeds one would.

A claim about several differences holds where all hold, each tested at the full level (intersection-union); it does not hold
where one does not, tested at the level divided by their number.

A claim is judged once, when all seeds of the configuration are there for all of its arms: a test that is repeated at
every look, until it says something, is none at its level, and neither is one of whichever seeds have survived.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..study.verdicts import Claim, Rules, Verdict
from .evidence import Definition, Difference, JudgedClaim, JudgedPart
from .inference import one_sided, seeds_needed, t_interval
from .power import assumed_spread
from .published import Pair

HOLDS: Verdict = "holds"
DOES_NOT: Verdict = "does not hold"
CANNOT_TELL: Verdict = "cannot tell"


def decide(
    differences: Sequence[float], margin: float, rules: Rules, among: int = 1
) -> tuple[Verdict, float | None, float | None]:
    """The verdict on paired differences over seeds, p of the two-sided test, and p of the one against the margin.

    Args:
        margin: in the unit of the differences.
        among: of how many differences one that fails is enough to refute the claim.
    """
    if len(differences) < max(2, rules.minimum_seeds):
        return CANNOT_TELL, None, None
    interval = t_interval(differences, rules.level)
    below = one_sided(differences, margin, below=True)
    if interval.p is not None and interval.p < rules.level and interval.mean > 0:
        return HOLDS, interval.p, below
    # arms that are the same at every seed differ by nothing
    alike = interval.p == 1.0 and interval.low == interval.high
    if alike or (below is not None and below * among < rules.level):
        return DOES_NOT, interval.p, below
    return CANNOT_TELL, interval.p, below


def judge(definition: Definition, differences: Sequence[Difference]) -> list[JudgedClaim]:
    """Every claim, for each of its models and in each version of its endpoint."""
    rules = definition.rules
    if rules is None:
        return []
    known = {(d.pair, d.quantity, d.pooled): d for d in differences}
    return [verdict for name in rules.claims for verdict in _claim(name, definition, rules, known)]


def _claim(
    name: str, definition: Definition, rules: Rules, known: dict[tuple[Pair, str, bool], Difference]
) -> Iterator[JudgedClaim]:
    claim = rules.claims[name]
    for role in claim.models:
        model = definition.roles.get(role, role)
        if definition.only_model not in (None, model):
            continue
        versions = [e for e in claim.endpoints if e in definition.endpoints]
        if not versions:
            yield _out_of_reach(name, model, definition, rules)
        for endpoint in versions:
            quantities = definition.endpoints[endpoint].columns if claim.each else (endpoint,)
            wanted = [(model, pair.treatment, pair.reference) for pair in claim.pairs]
            found = [known.get((pair, quantity, not claim.each)) for pair in wanted for quantity in quantities]
            parts = [d for d in found if d is not None]
            judged = _parts(parts, claim, definition, rules, len(found))
            absent = definition.absent_seeds(set.intersection(*({s.seed for s in d.by_seed} for d in parts)) if parts else ())
            verdict, why, needed = _together(judged, len(found), definition, rules, absent)
            yield JudgedClaim(
                claim=name,
                says=claim.says,
                source=claim.source,
                model=model,
                endpoint=endpoint,
                endpoint_label=definition.endpoints[endpoint].label + (", each by itself" if claim.each else ""),
                deciding=endpoint == versions[0],
                n=min((p.n for p in judged), default=0),
                verdict=verdict,
                why=why,
                needed=needed,
                parts=tuple(judged),
            )


def _out_of_reach(name: str, model: str, definition: Definition, rules: Rules) -> JudgedClaim:
    """A claim none of whose endpoints can be made of the columns that there are: it is said, and not passed over."""
    claim = rules.claims[name]
    first = rules.endpoints[claim.endpoints[0]]
    needs = dict.fromkeys(c for e in claim.endpoints for c in rules.endpoints[e].columns if c not in definition.columns)
    labels = ", ".join(definition.left_out.get(column, column) for column in needs)
    return JudgedClaim(
        claim=name,
        says=claim.says,
        source=claim.source,
        model=model,
        endpoint=claim.endpoints[0],
        endpoint_label=first.label,
        deciding=True,
        n=0,
        verdict=None,
        why=f"no version of its endpoint can be made without {labels}, for which no judge is configured",
    )


def _parts(
    differences: Sequence[Difference], claim: Claim, definition: Definition, rules: Rules, among: int
) -> list[JudgedPart]:
    judged = []
    for d in differences:
        margin = (claim.margin or rules.margin) / d.scale
        whole = not definition.absent_seeds(s.seed for s in d.by_seed)
        verdict, p, below = decide(d.differences, margin, rules, among) if whole else (CANNOT_TELL, None, None)
        needed = None
        if whole and verdict == CANNOT_TELL:
            measured = d.n >= rules.minimum_seeds
            spread = float(np.std(d.differences, ddof=1)) if measured else _assumed(d, definition, rules) / d.scale
            needed = max(rules.minimum_seeds, d.n + 1, seeds_needed(margin, spread, rules.level, rules.power))
        judged.append(
            JudgedPart(
                treatment=d.treatment,
                reference=d.reference,
                quantity=d.quantity,
                label=d.label,
                n=d.n,
                difference=d.difference,
                low=d.low,
                high=d.high,
                margin=margin,
                p=p,
                p_below_margin=below,
                verdict=verdict,
                published=d.published.change if d.published else None,
                needed=needed,
            )
        )
    return judged


def _assumed(d: Difference, definition: Definition, rules: Rules) -> float:
    """Of a paired difference over seeds, in points of 100: what the rules assume of seeds, and what single questions do."""
    columns = definition.endpoints[d.quantity].columns if d.pooled else (d.quantity,)
    return math.hypot(assumed_spread(len(columns), rules.assumed), d.question_error * d.scale)


def lacking_seeds(absent: Sequence[str], definition: Definition) -> str:
    verb = "is" if len(absent) == 1 else "are"
    return f"{len(absent)} of {len(definition.seeds)} configured seeds {verb} missing ({', '.join(absent)})"


def _together(
    parts: Sequence[JudgedPart], wanted: int, definition: Definition, rules: Rules, absent: Sequence[str]
) -> tuple[Verdict | None, str, int | None]:
    """Verdict, why, and about how many seeds a new study would need to tell."""
    if not parts:
        return None, "not both evaluated in the same way at one seed", None
    if len(parts) < wanted:
        return CANNOT_TELL, f"{wanted - len(parts)} of {wanted} differences are not evaluated", None
    if absent:
        return CANNOT_TELL, lacking_seeds(absent, definition), None
    if failing := [p for p in parts if p.verdict == DOES_NOT]:
        return DOES_NOT, _refuted(failing, wanted), None
    undecided = [p for p in parts if p.verdict == CANNOT_TELL]
    if not undecided:
        return HOLDS, _confirmed(parts, rules), None
    needed = max(p.needed for p in undecided if p.needed is not None)
    few = min(p.n for p in parts)
    if few < rules.minimum_seeds:
        seeds = f"{few} seed{'s' if few > 1 else ''} of at least {rules.minimum_seeds}"
        return CANNOT_TELL, f"{seeds}; would need about {needed} by the assumed spread", needed
    which = "" if len(parts) == 1 else f"{len(undecided)} of {len(parts)} differences undecided; "
    return CANNOT_TELL, f"{which}would need about {needed} seeds", needed


def _confirmed(parts: Sequence[JudgedPart], rules: Rules) -> str:
    small = [p for p in parts if p.p_below_margin is not None and p.p_below_margin < rules.level]
    said = f"better at the {rules.level:.0%} level" + (f" in all {len(parts)} differences" if len(parts) > 1 else "")
    where = f" in {len(small)}" if len(parts) > 1 else ""
    return f"{said}, but by less than the margin{where}" if small else said


def _refuted(failing: Sequence[JudgedPart], wanted: int) -> str:
    worst = min(failing, key=lambda p: p.difference / p.margin)
    what = f"an effect of {worst.margin:g} or more is ruled out"
    worse = worst.p is not None and worst.high < 0
    what += ", and it is worse" if worse else ""
    if wanted > 1:
        what += f" in {len(failing)} of {wanted} differences, such as {worst.label} of {worst.treatment}"
    # that an effect of the margin is ruled out says nothing against a smaller one, if the interval holds it
    if worst.published is not None and worst.published < worst.margin and worst.published <= worst.high:
        there = " there" if wanted > 1 else ""
        what += f"; the paper's own difference{there} is {worst.published:+.2f}, below the margin: this does not contradict it"
    return what
