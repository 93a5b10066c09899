"""The report's figures: data in, SVG out, the same bytes each time. A file for each kind."""
