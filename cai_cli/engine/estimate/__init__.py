"""What a run will come to before it is paid for: flows played, replies found or guessed, sums with intervals."""
