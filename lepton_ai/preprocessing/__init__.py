"""Cleaning, scaling, augmenting, splitting and tokenising data."""
