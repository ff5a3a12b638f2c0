"""The report: one file that opens anywhere."""
