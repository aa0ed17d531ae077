"""Red teaming: attacks as small functions, what gets through, what catches it, what to change.

encodings framing context lab   the families of attacks: pure functions
families                        their table, their names, two in a row
search                          an attacker that learns from the target's answers
requests                        what is asked, in plain words
verdict truth                   whether an attack got through: by a judge; by the oracle
attack                          all of it on some models, resumable
critics                         which principle's critique catches what got through
scores page                     tables and one page
amend edit loop                 a better constitution, tests for it, and the whole round
"""
