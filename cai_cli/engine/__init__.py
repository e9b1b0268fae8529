"""Everything a stage does not do itself: asking, remembering, pacing, paying, writing, going on after a stop."""
