"""A whole step of a model, one compiled call over up to 64 rows of any timelines."""
