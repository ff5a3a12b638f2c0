"""Which part of the model is at fault, and which concepts are responsible."""
