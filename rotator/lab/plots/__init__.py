"""A report as a picture: `rows` is what both pictures show, `terminal` and `svg` draw it. Pure: text comes out."""
