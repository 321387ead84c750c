"""The closed form: kept layers learn by least squares to do a dropped block's work too."""
