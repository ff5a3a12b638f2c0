"""Scale: extraction, alignment, heatmaps and checks in parts, on one machine or on many."""
