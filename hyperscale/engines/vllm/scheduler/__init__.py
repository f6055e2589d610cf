"""The scheduler's side: admits requests, hands out superblocks, and books what chains cost.

`superblocks` decides how many superblocks a request gets and whether there is room for a new one; `manager` is the
class through which vLLM asks it; `channel` exchanges messages with the workers; `costs` adds up reads and peaks;
`output_hook` makes vLLM book a step's report before it frees finished requests.
"""
