"""Which families of models run: those that tests hold, by name, and all others by what their classes need.

`names` lists the first, `needs` decides on the rest. A model that `needs` lets in is tried once it is loaded, by
`hyperscale.engines.torch.trial`.
"""
