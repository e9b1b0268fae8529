"""The simulated world as a server on 127.0.0.1: Messages and chat completions, and every way in which a server fails."""
