"""The geometry of a report's charts, in SVG user units."""
