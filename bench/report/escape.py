"""Make foreign text (labels, reasons, titles) harmless in each output format.

It arrives from suites and from records of other people's machines, so none of it is trusted.
"""

from __future__ import annotations

import html
import re
import unicodedata


def clean(text: object) -> str:
    """One printable line: line breaks, tabs, terminal escapes and invisible direction marks become single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())


def markdown(text: object) -> str:
    """Text in a Markdown table cell or paragraph (GitHub flavour)."""
    escaped = re.sub(r"([\\`*_\[\]|$~])", r"\\\1", clean(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def markdown_label(text: object) -> str:
    """A label: as code where it holds an at sign, which GitHub would else turn into a mail link (symmetric@0.5)."""
    label = clean(text)
    return f"`{label}`" if "@" in label and not set(label) & set("`\\|") else markdown(label)


def web(text: object) -> str:
    return html.escape(clean(text), quote=True)


_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "[": "{[}",  # after a line end, a bracket or a star would be read as its argument
    "]": "{]}",
    "*": "{*}",
    "±": r"$\pm$",
    "−": "$-$",
    "✓": r"\checkmark{}",
    "★": r"$\star$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "→": r"$\rightarrow$",
    "°": r"$^\circ$",
    "—": "---",
    "–": "--",
    "…": r"\dots{}",
    "†": r"\textdagger{}",
    "’": "'",
    "‘": "`",
    "“": "``",
    "”": "''",
}
# fmt: off
_GREEK = (
    ("α", "alpha"), ("β", "beta"), ("γ", "gamma"), ("δ", "delta"), ("ε", "epsilon"), ("η", "eta"), ("θ", "theta"),
    ("κ", "kappa"), ("λ", "lambda"), ("μ", "mu"), ("µ", "mu"), ("π", "pi"), ("ρ", "rho"), ("σ", "sigma"), ("τ", "tau"),
    ("φ", "phi"), ("χ", "chi"), ("ψ", "psi"), ("ω", "omega"),
)
# fmt: on
_TEX.update({letter: rf"$\{name}$" for letter, name in _GREEK})


def tex(text: object) -> str:
    """Text for LaTeX under any engine. Letters that pdfLaTeX has no glyph for are printed as their code point."""
    return "".join(_tex_character(c) for c in unicodedata.normalize("NFC", clean(text)))


def _tex_character(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    if character.isascii() or ("À" <= character <= "ÿ" and character not in "×÷"):
        return character
    return f"{{[}}U+{ord(character):04X}{{]}}"


def slug(text: object) -> str:
    """Letters, digits and hyphens, for identifiers."""
    return re.sub(r"[^a-z0-9]+", "-", clean(text).lower()).strip("-") or "table"


def width(text: str) -> int:
    """Columns that text takes on a terminal."""
    if max(text, default="") < "\u0300":  # the usual case, fast: no combining or wide characters below
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, size: int, align: str = "left") -> str:
    space = " " * max(0, size - width(text))
    return space + text if align == "right" else text + space
