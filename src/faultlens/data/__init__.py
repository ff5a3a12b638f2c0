"""Images and their preprocessing: what goes into a classifier."""
