"""The co-pilot: where the beat is, what was heard, when to answer, and the answer. Time is always an argument."""
