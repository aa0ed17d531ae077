"""The page that a person reads: figures as inline SVG, one self-contained HTML file."""
