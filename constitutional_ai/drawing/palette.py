"""The colours of the page and its figures: apart in lightness, so that greyscale keeps them apart.

The series have the hues of Okabe and Ito's colour-blind safe set, but no two are within 9 points of
CIE lightness, and each has a contrast of at least 3 to 1 with the paper (WCAG 2.2, 1.4.11). No five
greys do that on white and on black alike: dark paper has its own five. Files use the light ones.
"""

INK, GRID = "#1b1f23", "#c9ced3"  # in the page: var(--ink), var(--grid)
PAPER = {"light": "#fdfdfc", "dark": "#16181b"}
SERIES = {
    "light": ("#226291", "#d17d00", "#0d372c", "#b552a0", "#43474c"),
    "dark": ("#66aadb", "#ffdba4", "#1d7b63", "#dfb4d6", "#80888f"),
}
