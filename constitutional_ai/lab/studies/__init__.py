"""The paper's findings, seen in the laboratory: several runs each, with figures and a table.

What a study is stands in study.py. Runs of a seed share every stage that their settings have in
common (sharing.py). Stages and measurements run side by side (workers.py). A page is drawn from the
result file alone (pages.py). No study can show how large an effect is in a real language model.
"""
