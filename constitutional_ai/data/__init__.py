"""Every reader of what people bring along: prompts, test sets, answers, compared pairs.

sources.py    one way in: a file, a data set of the hub, or a starter file, as rows
lines.py      JSONL and CSV                 arrow.py      Parquet and data sets
benchmarks.py published test sets           dialogues.py  pairs of dialogues
prompts.py    to train on                   cases.py      to be tested on
requests.py   to attack with                answers.py    made elsewhere
pairs.py      compared answers              overlap.py    tested on what was trained on
survey.py     `cai data`                    rows.py       what all of them share
"""
