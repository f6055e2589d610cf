"""The two losses of a retrofit and the schedule of its target."""

import math

import pytest
import torch

from hyperscale.retrofit.losses import compression_loss, distillation_loss, ledger_costs, scheduled_cr

# --- distillation ---


def logits(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def test_distillation_is_the_divergence_of_student_from_teacher():
    student, teacher = logits(0, 2, 5, 7), logits(1, 2, 5, 7)
    weight = torch.tensor([[1, 0, 1, 1, 0], [0, 0, 1, 0, 1.0]])
    total = 0.0
    for b in range(2):
        for s in range(5):
            p = [math.exp(x) for x in student[b, s].double().tolist()]
            q = [math.exp(x) for x in teacher[b, s].double().tolist()]
            p, q = [x / sum(p) for x in p], [x / sum(q) for x in q]
            kl = sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
            total += float(weight[b, s]) * kl
    assert distillation_loss(student, teacher, weight).item() == pytest.approx(total / 5, rel=1e-5)
    assert distillation_loss(student, teacher, weight).item() != pytest.approx(
        distillation_loss(teacher, student, weight).item(), rel=0.01
    )


def test_distillation_is_zero_for_equal_distributions_and_without_weight():
    student = logits(0, 2, 5, 7)
    assert distillation_loss(student, student + 3.0, torch.ones(2, 5)).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(student, logits(1, 2, 5, 7), torch.zeros(2, 5)).item() == 0


def test_distillation_moves_the_student_towards_the_teacher():
    teacher = logits(1, 3, 7)
    student = logits(0, 3, 7).requires_grad_()
    weight = torch.tensor([1.0, 0.0, 1.0])
    before = distillation_loss(student, teacher, weight)
    before.backward()
    assert not student.grad[1].any()
    assert student.grad[0].any()
    with torch.no_grad():
        assert distillation_loss(student - 0.1 * student.grad, teacher, weight) < before


def test_both_directions_are_added():
    student, teacher, weight = logits(0, 2, 5, 7), logits(1, 2, 5, 7), torch.ones(2, 5)
    there, back = distillation_loss(student, teacher, weight), distillation_loss(teacher, student, weight)
    assert distillation_loss(student, teacher, weight, symmetric=True).item() == pytest.approx((there + back).item())


def test_only_both_directions_correct_a_student_that_is_sure_and_wrong():
    teacher = torch.tensor([[20.0, 0, 0]])
    gradients = []
    for symmetric in (False, True):
        student = torch.tensor([[0.0, 20, 0]], requires_grad=True)
        distillation_loss(student, teacher, torch.ones(1), symmetric).backward()
        gradients.append(student.grad.abs().max().item())
    assert gradients[0] < 1e-4
    assert gradients[1] == pytest.approx(1, abs=1e-4)


# --- compression ---


def verdicts(*shares, layers=3, heads=2):
    """One row, one token per share; layers and heads differ around the share."""
    spread = torch.linspace(-0.05, 0.05, layers * heads).reshape(layers, heads)
    share = torch.tensor(shares)[None, :, None]
    return [(share + spread[i]).requires_grad_() for i in range(layers)]


def gradients(alphas, target, group, groups):
    loss, share = compression_loss(alphas, target, torch.tensor([group]), groups)
    loss.backward()
    return loss.item(), share[:, 0].tolist(), torch.stack([a.grad for a in alphas]).sum((0, 1, 3)).tolist()


def test_compression_is_the_shortfall_of_the_mean():
    loss, share, grad = gradients(verdicts(0.2, 0.4, 0.9), 0.5, [0, 0, -1], 1)
    assert share == pytest.approx([0.3])
    assert loss == pytest.approx(0.2)
    assert grad == pytest.approx([-0.5, -0.5, 0.0])  # more eviction lowers the loss; the last token does not count


def test_compression_does_not_pull_beyond_the_target():
    loss, share, grad = gradients(verdicts(0.7, 0.8), 0.5, [0, 0], 1)
    assert share == pytest.approx([0.75])
    assert (loss, grad) == (0.0, [0.0, 0.0])


def test_compression_is_per_group():
    # One group beyond its target does not make up for another short of it; an absent group counts for nothing.
    loss, share, grad = gradients(verdicts(0.9, 0.1, 0.3), 0.5, [0, 1, 1], 3)
    assert share == pytest.approx([0.9, 0.2, 0.0])
    assert loss == pytest.approx(0.3)
    assert grad == pytest.approx([0.0, -0.5, -0.5])
    # Each group pulls with the weight it would have alone.
    assert gradients(verdicts(0.1, 0.1, 0.3), 0.5, [0, 1, 1], 2)[0] == pytest.approx(0.4 + 0.3)
    merged, *_ = gradients(verdicts(0.9, 0.1, 0.3), 0.5, [0, 0, 0], 1)
    assert merged == pytest.approx(0.5 - 1.3 / 3)


def test_compression_of_nothing_is_zero():
    loss, share, _ = gradients(verdicts(0.2, 0.4), 0.5, [-1, -1], 2)
    assert loss == 0
    assert share == [0, 0]


# --- target ---


def test_the_ratio_rises_by_one_in_so_many_steps_and_stops():
    assert [scheduled_cr(step, 100, 8) for step in (0, 50, 100, 700, 5000)] == [1, 1.5, 2, 8, 8]


# --- what eviction saves ---

ROWS = [  # documents as (prompt, generated) lengths, then padding
    [(3, 9), (1, 2), (0, 1)],
    [(5, 1), (2, 13)],
]


def packed(rows, length=24):
    """Documents and the places where a step reads, both (rows, length); padding is document -1."""
    document, generated = torch.full((len(rows), length), -1), torch.zeros(len(rows), length)
    for r, row in enumerate(rows):
        at = 0
        for number, (prompt, steps) in enumerate(row):
            document[r, at : at + prompt + steps] = number
            generated[r, at + prompt : at + prompt + steps] = 1
            at += prompt + steps
    return document, generated


@pytest.mark.parametrize("window", [0, 1, 4, 30])
def test_savings_are_what_counting_a_full_mask_gives(window):
    document, generated = packed(ROWS)
    cost, saved = ledger_costs(document, generated, window)
    for r in range(len(ROWS)):
        for i in range(document.shape[1]):
            same = [t for t in range(i, document.shape[1]) if document[r, t] == document[r, i]]
            late = [t for t in same if t - i > window]
            read, spared = (sum(generated[r, t].item() for t in each) for each in (same, late))
            assert cost[r, i].tolist() == [read, 1]
            assert saved[r, i].tolist() == [spared, float(bool(late))]


def test_a_share_saved_is_the_realised_ratio():
    # One document, everything evicted but the tokens 0 and 7: the shares follow from counting entries step by step.
    prompt, steps, window = 6, 40, 3
    document, generated = packed([[(prompt, steps)]], prompt + steps)
    alpha = torch.ones(1, prompt + steps, 2)
    alpha[:, [0, 7]] = 0.0
    group = torch.zeros(1, prompt + steps, dtype=torch.long)
    cost, saved = ledger_costs(document, generated, window)
    _, share = compression_loss([alpha], 0.5, group, 1, cost, saved)
    live = [sum(t - i <= window or i in (0, 7) for i in range(t + 1)) for t in range(prompt, prompt + steps)]
    dense = [t + 1 for t in range(prompt, prompt + steps)]
    assert 1 / (1 - share[0, 0].item()) == pytest.approx(sum(dense) / sum(live))
    assert 1 / (1 - share[0, 1].item()) == pytest.approx(dense[-1] / live[-1])


def test_each_axis_pulls_by_itself():
    document, generated = packed([[(4, 8)]], 12)
    cost, saved = ledger_costs(document, generated, 0)
    group = torch.zeros(1, 12, dtype=torch.long)
    alpha = torch.zeros(1, 12, 1)
    alpha[:, :4] = 1.0  # the prompt is gone: many reads saved, few entries of the end
    alpha.requires_grad_()
    loss, share = compression_loss([alpha], 0.4, group, 1, cost, saved)
    assert share[0, 0] > 0.4 > share[0, 1]
    assert loss.item() == pytest.approx(0.4 - share[0, 1].item())
