"""Antiphon: a box that answers the bars a musician plays."""
