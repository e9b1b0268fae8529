"""People check the labels that a model gave: whom they are shown, what they say, and what follows. Pure: no disk, no clock.

    drawing    which pairs are put before people, each with a known probability
    labels     what people wrote, checked; from it the gold that goes back into the labels
    kinds      why people and the AI disagree, by people's own words
    argilla    the same questions and answers as Argilla writes them
    columns    what is needed of every pair, and of those that people labelled
    measuring  agreement, win rates and biases, weighted by one over the probability of having been looked at
    winning    win rates by people helped by the AI
    advising   what follows, each with the number behind it

`engine/audit.py` reads and writes the files around it.
"""
