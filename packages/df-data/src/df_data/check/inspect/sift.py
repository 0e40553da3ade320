"""Sorting and filtering of the page's cards by any score and reason: the controls, what cards carry, and the script.

The page works alone: what the script reads stands in the cards' own attributes, as JSON.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping

from df_data.check.inspect.svg import element, escape

SIFT_SCRIPT = """
for (const form of document.querySelectorAll("form.sift")) {
  const cards = [...document.getElementById(form.dataset.of).children];
  const {score, order, low, high, reason} = form.elements;
  const scores = new Map(cards.map(card => [card, JSON.parse(card.dataset.scores)]));
  const reasons = new Map(cards.map(card => [card, JSON.parse(card.dataset.reasons)]));
  const sift = () => {
    const value = card => scores.get(card)[score.value] ?? NaN;
    const bound = (input, none) => input.value === "" || isNaN(input.value) ? none : Number(input.value);
    const least = bound(low, -Infinity), most = bound(high, Infinity), bounded = least > -Infinity || most < Infinity;
    const sign = order.value === "falling" ? -1 : 1;
    const sorted = score.value === "" ? cards : [...cards].sort((a, b) =>
      isNaN(value(a)) - isNaN(value(b)) || sign * (value(a) - value(b)) || 0);
    let shown = 0;
    for (const card of sorted) {
      const inside = !bounded || score.value === "" || (value(card) >= least && value(card) <= most);
      const named = reason.value === "" || reasons.get(card).includes(reason.value);
      card.hidden = !(inside && named);
      shown += !card.hidden;
      card.querySelector(".by").textContent =
        score.value === "" || isNaN(value(card)) ? "" : score.value + " " + Number(value(card).toPrecision(4));
      card.parentNode.append(card);
    }
    form.querySelector("output").textContent = shown + " of " + cards.length + " shown";
  };
  form.hidden = false;
  form.addEventListener("input", sift);
  form.addEventListener("submit", event => { event.preventDefault(); sift(); });
  sift();
}
"""


def sift_bar(of: str, scores: Iterable[str], reasons: Iterable[str], what: str) -> str:
    """Return the controls of the list whose id is ``of``; they show themselves where scripts run.

    Args:
        scores: names that its cards can be sorted and bounded by.
        reasons: of each card; each is offered with how many cards have it.
        what: what the reasons are.
    """
    counts = Counter(reasons)
    named = {"": "as they come"} | {name: name for name in sorted(set(scores))}
    why = {"": "any"} | {name: f"{name} ({number})" for name, number in counts.most_common()}
    controls = [
        _labelled("sort by", _select("score", named)),
        _labelled("", _select("order", {"rising": "rising", "falling": "falling"}), name="order"),
        _labelled("from", _number("low")),
        _labelled("to", _number("high")),
        _labelled(what, _select("reason", why)),
        element("output", ""),
    ]
    return element("form", "".join(controls), class_="sift", data_of=of, autocomplete="off", hidden="")


def card_data(scores: Mapping[str, float], reasons: Iterable[str]) -> dict[str, str]:
    """Return the attributes by which a card is sorted and filtered, for :func:`~df_data.check.inspect.svg.element`."""
    finite = {name: value for name, value in scores.items() if math.isfinite(value)}
    return {"data_scores": json.dumps(finite), "data_reasons": json.dumps(list(reasons))}


def shown_value() -> str:
    """Return where a card shows the score that it is sorted by."""
    return element("span", "", class_="by")


def _labelled(text: str, control: str, name: str = "") -> str:
    told = f"{escape(text)} " if text else ""
    return element("label", told + control, **({"aria_label": name} if name else {}))


def _select(name: str, options: Mapping[str, str]) -> str:
    inside = "".join(element("option", escape(text), value=value) for value, text in options.items())
    return f'<select name="{name}">{inside}</select>'


def _number(name: str) -> str:
    return f'<input name="{name}" type="text" inputmode="decimal" size="7">'
