"""Where images come from: one file for each named data set, for image folders, and for toy images.

A source is called with a path or None and returns `Samples`: files or arrays with their labels,
listed but not decoded. Without a path, a named set is looked for in ``$FASTCV_DATA/NAME``, then in
fastai's data folder, and fetched into that one if neither has it. A path may be the set's own
folder or its parent; original files and image folders are both read.
"""
