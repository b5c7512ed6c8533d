"""Reports, and the ways to render them."""
