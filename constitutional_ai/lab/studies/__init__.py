"""The paper's findings, watched in the laboratory: several runs, one figure, one table each.

A study is a base run file, variants of it, what is measured on them, and how that is shown. Runs of
a seed share every stage that their settings have in common (steps.py), stages and measurements run
side by side (tasks.py), and a page is drawn from nothing but the result file (pages.py). What the
studies cannot show: how large an effect is in a real language model.
"""
