"""Makes and grades the problems of sums.yaml."""


def make_problem(number, rng):
    """The fields of a problem; `rng` is a random.Random of this problem's own."""
    numbers = [rng.randrange(10, 100) for _ in range(2 + number % 4)]
    return {"numbers": ", ".join(map(str, numbers)), "total": sum(numbers)}


def is_total(answer, target):
    """Whether the last line of an answer is the sum."""
    last = answer.splitlines()[-1]
    return last.strip(" .") == str(target)
