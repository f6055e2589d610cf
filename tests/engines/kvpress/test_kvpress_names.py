"""Names, ratios and parameters of kvpress's presses, and what is said of them."""

import pytest

pytest.importorskip("kvpress", reason="kvpress is not installed (docs/kvpress.md)")

from hyperscale import methods
from hyperscale.errors import MethodError


def test_the_ratio_becomes_what_the_press_takes():
    def made(name, cr, prompt=100, new=900, **params):
        return methods.create(f"kvpress:{name}", cr=cr, **params).make_press(prompt, new)

    press = made("DecodingPress:KnormPress", 4)
    assert (press.target_size, press.compression_interval, press.hidden_states_buffer_size) == (250 - 16, 16, 256)
    press = made("DecodingPress:SnapKVPress", 3, compression_interval=100, window_size=32)
    assert (press.target_size, press.base_press.window_size) == (334 - 100, 32)
    assert made("CAMPress:AdaKVPress:KnormPress", 1000, compression_interval=5).target_size == 1
    press = made("CompressionRatioDecodingPress:KnormPress", 8)
    assert (press.target_compression_ratio, press.compression_interval) == (0.875, 16)
    press = made("PrefillDecodingPress:SnapKVPress:CompressionRatioDecodingPress:TOVAPress", 4)
    assert (press.prefilling_press.compression_ratio, press.decoding_press.target_compression_ratio) == (0.75, 0.75)
    press = made("DMSPress:KnormPress", 4, threshold={4: -3.5, "8": -3}, sliding_window_size=9)
    assert (press.threshold, press.sliding_window_size, press.decoding) == (-3.5, 9, True)
    assert made("DecodingPress:CriticalKVPress:KnormPress", 2).base_press.press.__class__.__name__ == "KnormPress"


def test_presses_say_what_they_are():
    def made(name, **params):
        return methods.create(f"kvpress:{name}", cr=4, **params)

    fixed, share = made("DecodingPress:KnormPress"), made("CompressionRatioDecodingPress:KnormPress")
    masking, merging = made("DecodingPress:AdaKVPress:KnormPress"), made("CAMPress:KnormPress")
    threshold = made("DMSPress:KnormPress", threshold=-3)
    both = made("PrefillDecodingPress:KnormPress:DecodingPress:KnormPress")
    assert [m.length_invariant for m in (fixed, merging, both, share, threshold)] == [False, False, False, True, True]
    assert [m.kind for m in (fixed, share, masking, threshold)] == ["evictor", "evictor", "selector", "selector"]
    assert fixed.params() == {"cr": 4, "compression_interval": 16}
    assert threshold.params() == {"cr": 4, "threshold": -3}
    assert methods.create(str(threshold), **threshold.params()).params() == threshold.params()
    assert methods.notes([fixed, share]) == []
    assert methods.notes([masking, masking]) == [
        "kvpress:DecodingPress:AdaKVPress:KnormPress masks entries and frees none: peak_kv counts them all, kv_reads "
        "those that are attended to"
    ]
    assert len(methods.notes([threshold])) == 2
    assert methods.retrofit_kind("kvpress:DecodingPress:KnormPress") is None


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("NoPress", {}, "kvpress has no press 'NoPress'; those that work while decoding: .*DecodingPress"),
        ("nn", {}, "kvpress has no press 'nn'"),
        ("", {}, "kvpress has no press ''"),
        ("KnormPress", {}, "write kvpress:DecodingPress:KnormPress"),
        ("ThinKPress", {}, "ThinKPress compresses only the prompt; those that work while decoding: CAMPress"),
        ("KVzipPress", {}, "compresses only the prompt"),
        ("DecodingPress", {}, r"wraps one more press \(base_press\)"),
        ("PrefillDecodingPress:KnormPress", {}, r"wraps one more press \(decoding_press\)"),
        ("DecodingPress:KnormPress:TOVAPress", {}, "TOVAPress has no place in it"),
        ("DecodingPress:Knorm", {}, "kvpress has no press 'Knorm'"),
        ("DecodingPress:ThinKPress", {}, "kvpress refuses .* requires a ScorerPress"),
        ("PrefillDecodingPress:KVzipPress:DecodingPress:KnormPress", {}, "needs passes over the prompt of its own"),
        ("PrefillDecodingPress:ThinKPress:DecodingPress:KnormPress", {}, "compression ratio cannot be set"),
        ("DecodingPress:KnormPress", {"target_size": 5}, r"'target_size': it follows from the compression ratio"),
        (
            "DecodingPress:KnormPress",
            {"base_press": 5},
            "no parameter 'base_press'; it has: compression_interval, hidden",
        ),
        ("DecodingPress:KnormPress", {"compression_interval": 0}, "must be greater than 0"),
        ("DecodingPress:KnormPress", {"compression_interval": "x"}, "kvpress refuses"),
        ("DecodingPress:KnormPress", {"compression_interval": {8: 1}}, "has compression_interval for CR 8, not for 4"),
        ("DecodingPress:KnormPress", {"compression_interval": {"a": 1}}, "wrong type"),
        ("DMSPress:KnormPress", {}, "write params: {'kvpress:DMSPress:KnormPress': {threshold: …}}"),
    ],
)
def test_errors(name, params, message):
    with pytest.raises(MethodError, match=message):
        methods.create(f"kvpress:{name}", cr=4, **params)


def test_methods_of_different_presses_or_settings_differ():
    one = methods.create("kvpress:DecodingPress:KnormPress", cr=4)
    assert one == methods.create("kvpress:DecodingPress:KnormPress", cr=4)
    assert one != methods.create("kvpress:DecodingPress:KeyDiffPress", cr=4)
    assert one != methods.create("kvpress:DecodingPress:KnormPress", cr=4, compression_interval=5)
