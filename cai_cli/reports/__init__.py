"""Tables, lines and stories for people, drawn from plain data. Nothing here asks, and nothing but `console` touches a stream."""
