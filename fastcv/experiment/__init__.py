"""What runs a recipe: training, its run directory, its results, series of runs."""
