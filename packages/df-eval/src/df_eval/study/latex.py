"""Any text as LaTeX that compiles with pdfLaTeX and prints the same signs."""

from __future__ import annotations

import re
import unicodedata

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "—": "---",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}
_LIGATURES = re.compile(r"(?<=[-`',])(?=[-`',])")
"""Between signs of which pdfLaTeX would make one: two hyphens a dash, two quotes another quote."""
_FORMULAS = {
    "±": r"\pm", "×": r"\times", "≥": r"\geq", "≤": r"\leq", "−": "-", "°": r"^\circ", "→": r"\to", "↑": r"\uparrow",
    "↓": r"\downarrow",
}  # fmt: skip
_GREEK = frozenset(
    ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "mu", "nu", "xi", "pi",
     "rho", "sigma", "tau", "phi", "chi", "psi", "omega")
)  # fmt: skip


def latex(text: str) -> str:
    """Text in one line (an empty one would end a paragraph, and so the cell) whose special characters LaTeX prints.

    Signs that pdfLaTeX does not know are told by their number, ``[U+1F600]``, so that no table fails to compile.
    """
    pieces = _LIGATURES.split(" ".join(text.split()))
    return "{}".join("".join(_SPECIAL.get(sign) or _sign(sign) for sign in piece) for piece in pieces)


def _sign(sign: str) -> str:
    if (sign.isascii() and sign.isprintable()) or (sign.isalpha() and ord(sign) < 256):  # Latin-1
        return sign
    if formula := _FORMULAS.get(sign):
        return f"${formula}$"
    *kind, letter = unicodedata.name(sign, "?").split()
    if kind == ["GREEK", "SMALL", "LETTER"] and letter.lower() in _GREEK:
        return f"$\\{letter.lower()}$"
    return f"[U+{ord(sign):04X}]"
