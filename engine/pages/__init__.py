"""Pages: HTML that needs nothing else, and in which no name does anything."""
