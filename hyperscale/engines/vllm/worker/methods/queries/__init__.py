"""What rules that look at queries or attention are given of requests in vLLM.

`recorded_queries` keeps the newest, `summed_queries` keeps sums of all, `received_attention` weighs a prompt's entries
by what its queries gave them.
"""
