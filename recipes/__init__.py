"""One experiment a file: the file's name is the recipe's name."""
