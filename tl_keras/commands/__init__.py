"""Commands of `tl-keras` beyond the main job, one file each; `tl_keras.cli` is their roof."""
