"""Judgement: pure, of the standard library alone, given ``now``."""
