"""The majority vote, in the plainest form: what the vectorised one in `voting.subsets` is held against."""


def majority(answers):
    """The most frequent answer, ties to the first occurring; None if no chain answered."""
    stated = [answer for answer in answers if answer is not None]
    return max(stated, key=stated.count, default=None)  # of several maxima, max gives the first
