"""Trains one student on several devices, a process each: weights, gradients and moments are sharded among them."""
