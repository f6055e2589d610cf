"""The two losses of a retrofit and the schedule of its target."""

import math

import pytest
import torch

from hyperscale.retrofit.losses import compression, distillation, scheduled_cr, target_alpha

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
    assert distillation(student, teacher, weight).item() == pytest.approx(total / 5, rel=1e-5)
    assert distillation(student, teacher, weight).item() != pytest.approx(
        distillation(teacher, student, weight).item(), rel=0.01
    )


def test_distillation_is_zero_for_equal_distributions_and_without_weight():
    student = logits(0, 2, 5, 7)
    assert distillation(student, student + 3.0, torch.ones(2, 5)).item() == pytest.approx(0, abs=1e-6)
    assert distillation(student, logits(1, 2, 5, 7), torch.zeros(2, 5)).item() == 0


def test_distillation_moves_the_student_towards_the_teacher():
    teacher = logits(1, 3, 7)
    student = logits(0, 3, 7).requires_grad_()
    weight = torch.tensor([1.0, 0.0, 1.0])
    before = distillation(student, teacher, weight)
    before.backward()
    assert not student.grad[1].any()
    assert student.grad[0].any()
    with torch.no_grad():
        assert distillation(student - 0.1 * student.grad, teacher, weight) < before


# --- compression ---


def verdicts(*shares, layers=3, heads=2):
    """One row, one token per share; layers and heads differ around the share."""
    spread = torch.linspace(-0.05, 0.05, layers * heads).reshape(layers, heads)
    share = torch.tensor(shares)[None, :, None]
    return [(share + spread[i]).requires_grad_() for i in range(layers)]


def gradients(alphas, target, group, groups):
    loss, share = compression(alphas, target, torch.tensor([group]), groups)
    loss.backward()
    return loss.item(), share.tolist(), torch.stack([a.grad for a in alphas]).sum((0, 1, 3)).tolist()


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


@pytest.mark.parametrize("cr", [1, 2, 4, 8])
def test_the_default_target_is_the_papers(cr):
    assert target_alpha(cr) == 1 - 1 / cr
    assert target_alpha(cr, 256) == 1 - 1 / cr


@pytest.mark.parametrize(("cr", "window", "reference"), [(2, 16, 1200), (4, 16, 1200), (8, 16, 1200), (4, 0, 10)])
def test_with_a_reference_length_the_realised_ratio_is_nominal(cr, window, reference):
    alpha = target_alpha(cr, window, reference)
    # Live entries once the last token is in: the window and the token itself, and what is kept of the rest.
    live = (window + 1) + (1 - alpha) * (reference - window - 1)
    assert reference / live == pytest.approx(cr)


def test_a_target_out_of_reach_stays_below_one():
    assert target_alpha(8, 16, 18) == 0.999


def test_the_ratio_rises_by_one_in_so_many_steps_and_stops():
    assert [scheduled_cr(step, 100, 8) for step in (0, 50, 100, 700, 5000)] == [1, 1.5, 2, 8, 8]
