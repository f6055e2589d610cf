"""The ledger on its own: the definition in `KVTrace`, counted by hand."""

from hyperscale.kv.ledger import Ledger
from hyperscale.kv.trace import dense_peak, dense_reads


def traced(prompt, tokens, cuts, rows=3):
    ledger = Ledger(rows, cuts)
    for step in range(tokens):
        ledger.count_token(rows * (prompt + step), rows * (prompt + step))
    return ledger.trace(lambda n: 2 * n)


def test_full_cache():
    trace = traced(prompt=10, tokens=7, cuts=(1, 2, 5, 100))
    assert trace.lengths == (1, 2, 5, 7)
    assert trace.kv_reads == tuple(dense_reads(10, n) for n in trace.lengths)
    assert trace.peak_kv == tuple(dense_peak(10, n) for n in trace.lengths)
    assert trace.chars == (2, 4, 10, 14)


def test_end_on_a_cut_is_listed_once():
    assert traced(prompt=1, tokens=5, cuts=(5, 5, 3)).lengths == (3, 5)


def test_peak_of_prefill_counts_its_reads_do_not():
    ledger = Ledger(1, ())
    for live in (50, 20, 21):
        ledger.count_token(live, live)
    trace = ledger.trace(lambda n: n)
    assert (trace.kv_reads, trace.peak_kv) == ((41.0,), (50.0,))


def test_what_is_read_and_what_is_held_count_apart():
    ledger = Ledger(2, ())
    for read, held in ((20, 20), (6, 22), (8, 24)):
        ledger.count_token(read, held)
    trace = ledger.trace(lambda n: n)
    assert (trace.kv_reads, trace.peak_kv) == ((7.0,), (12.0,))
