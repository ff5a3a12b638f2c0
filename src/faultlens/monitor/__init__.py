"""The runtime monitor: whether to trust a prediction, at a stated false-alarm rate, and why."""
