"""Steps that see all rows and ask nothing; one file is one step."""
